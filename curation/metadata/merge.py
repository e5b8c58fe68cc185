"""Entries of Wikipedias into metadata keys, and the fingerprint of a key (spec sections 3.6, 9.2).

An entry's position in its key's list is its id everywhere after, so the order is fixed: the numbers
"0".."99", then all others in ascending code point order. (The released code writes a Python set, so
a rebuild renumbers its entries.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

import polars as pl
import pyarrow as pa

from curation.metadata.strings import NUMBERS
from curation.metadata.wikis import metadata_key
from schemas.table_schemas import METADATA

_PRECEDENCE = ["", "w", "u", "b", "t"]


def owners(wikis: Iterable[str], keys: Collection[str]) -> dict[str, list[str]]:
    """Metadata key -> the Wikipedias it owns, both ascending; `keys` as in `metadata_key`."""
    owned: dict[str, list[str]] = {}
    for wiki in sorted(set(wikis)):
        owned.setdefault(metadata_key(wiki, keys), []).append(wiki)
    return dict(sorted(owned.items()))


def merge(key: str, selections: Iterable[pa.Table]) -> pa.Table:
    """The METADATA rows of one key: the union of its Wikipedias' entries (`select.SELECTED`).

    A string from several Wikipedias keeps the source that comes first in precedence.
    """
    rank = pl.Enum(_PRECEDENCE)
    numbers = pl.DataFrame({"text": NUMBERS, "source": [""] * len(NUMBERS)})
    frames = [pl.DataFrame(table).select("text", "source") for table in selections]
    union = pl.concat([numbers, *frames]).with_columns(pl.col("source").cast(rank))
    union = union.group_by("text").agg(pl.col("source").min())
    # A number's place is its value; every other string comes after them.
    place = pl.col("text").replace_strict(
        list(NUMBERS), range(len(NUMBERS)), default=len(NUMBERS), return_dtype=pl.UInt32
    )
    union = union.with_columns(place.alias("place")).sort(["place", "text"])
    rows = union.select(
        pl.lit(key).alias("metadata"),
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("entry"),
        pl.col("text"),
        pl.col("source").cast(pl.String),
    )
    return METADATA.validate(rows.to_arrow())


def combine(selections: Mapping[str, pa.Table], keys: Collection[str]) -> pa.Table:
    """The whole METADATA table of selections by Wikipedia, in order (metadata, entry)."""
    owned = owners(selections, keys)
    tables = [merge(key, [selections[wiki] for wiki in wikis]) for key, wikis in owned.items()]
    return pa.concat_tables(tables) if tables else METADATA.empty()


def fingerprints(metadata: pa.Table) -> dict[str, str]:
    """Metadata key -> hex digest of its entries in order (128 bits; sources do not enter).

    Two tables with the same fingerprint of a key have the same entry ids for it, so counts and
    probabilities made with one hold for the other.
    """
    found: dict[str, str] = {}
    frame = pl.DataFrame(metadata.select(["metadata", "entry", "text"]))
    for (key,), rows in frame.sort(["metadata", "entry"]).group_by("metadata", maintain_order=True):
        state = hashlib.blake2b(digest_size=16, person=b"headrace-entries")
        for text in rows["text"].to_list():
            data = text.encode()
            state.update(len(data).to_bytes(8, "little") + data)
        found[str(key)] = state.hexdigest()
    return found
