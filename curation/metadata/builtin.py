"""The shipped wordnets as ready metadata: `metadata=builtin`.

Files: `wordnets/index.json` names, for each language, the Parquet file of lemmas with its digest,
source, licence and credit. They lie in the checkout (`data/wordnets`), outside the wheel; an
installation without a checkout finds them under `$HEADRACE_ASSETS/wordnets`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.metadata.strings import NUMBERS
from curation.metadata.wordnets import lemma_entries, synset_entries
from schemas.errors import InputError, IntegrityError, UsageError

ASSETS_VARIABLE = "HEADRACE_ASSETS"
_CHECKOUT = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True)
class ShippedWordnet:
    """One line of the index: metadata key (a lid.176 code), file digest, and whom to credit under
    which licence.
    """

    key: str
    source: str
    name: str
    licence: str
    licence_file: str
    credit: str
    origin: str
    lemmas: int
    bytes: int
    blake2b: str

    @property
    def notice(self) -> str:
        """One line for a dataset card."""
        return f"{self.key}: {self.name} ({self.credit}), {self.licence}, from {self.origin}"


def folder() -> Path:
    """Where the shipped wordnets lie: the checkout's `data/wordnets`, else
    `$HEADRACE_ASSETS/wordnets`.

    Raises UsageError when neither holds an index.
    """
    places = [_CHECKOUT / "wordnets"]
    if assets := os.environ.get(ASSETS_VARIABLE):
        places.append(Path(assets) / "wordnets")
    for place in places:
        if (place / "index.json").is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise UsageError(
        f"metadata=builtin: no shipped wordnets found (looked in {looked}). They are data of the "
        f"checkout, not of the wheel: set {ASSETS_VARIABLE} to the checkout's data folder, or give "
        "metadata=DATASET."
    )


def wordnets() -> tuple[ShippedWordnet, ...]:
    """The index, in ascending order of key. Raises InputError when it cannot be read."""
    return _read_index(folder() / "index.json")


@functools.lru_cache(maxsize=2)
def _read_index(path: Path) -> tuple[ShippedWordnet, ...]:
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
        names = {f.name for f in fields(ShippedWordnet)}
        found = [
            ShippedWordnet(**{k: v for k, v in e.items() if k in names}) for e in page["wordnets"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: the index of the shipped wordnets is unreadable ({error}); restore it from "
            "the checkout."
        ) from error
    return tuple(sorted(found, key=lambda w: w.key))


def languages() -> tuple[str, ...]:
    """Metadata keys with a shipped wordnet, ascending."""
    return tuple(w.key for w in wordnets())


def licences(keys: Sequence[str] | None = None) -> list[str]:
    """One notice a language, for manifests and dataset cards."""
    return [w.notice for w in wordnets() if keys is None or w.key in keys]


def entries(key: str, *, english: str = "lemmas") -> pa.Array:
    """Wordnet entries of one language, ascending, without the numbers.

    `english="synsets"` gives Meta CLIP 1's English rule, the names of synsets only (spec 3.1);
    other languages always have all lemmas. Raises UsageError for a language without a shipped
    wordnet, IntegrityError for a changed file.
    """
    if english not in ("lemmas", "synsets"):
        raise UsageError(f"english={english!r}: expected lemmas or synsets.")
    wordnet = {w.key: w for w in wordnets()}.get(key)
    if wordnet is None:
        known = ", ".join(languages())
        raise UsageError(f"no wordnet is shipped for language {key!r}; shipped: {known}.")
    table = _lemmas(folder() / f"{key}.parquet", wordnet.blake2b)
    lemmas = table["lemma"].combine_chunks()
    if key == "en" and english == "synsets":
        return synset_entries(lemmas.filter(table["head"].combine_chunks()))
    return lemma_entries(lemmas)


def _lemmas(path: Path, digest: str) -> pa.Table:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: shipped wordnet unreadable ({error.strerror}).") from error
    found = hashlib.blake2b(data, digest_size=16).hexdigest()
    if found != digest:
        raise IntegrityError(
            f"{path}: the file's digest is {found}, the index says {digest}; restore the file, or "
            "rebuild the folder with tools/build_wordnets.py."
        )
    return pq.read_table(pa.BufferReader(data), use_threads=False)


def load(keys: Sequence[str] | None = None) -> pa.Table:
    """The METADATA table of the shipped wordnets, in order (metadata, entry).

    Entry ids count from 0 in each language: the numbers "0".."99", then all lemmas that are not
    among them in ascending code point order. `keys` restricts the languages. English has the whole
    lemma set, not only synset names.
    """
    from schemas.table_schemas import METADATA

    tables = [_language(key) for key in sorted(set(languages() if keys is None else keys))]
    if not tables:
        return METADATA.arrow.empty_table()
    return METADATA.validate(pa.concat_tables(tables).combine_chunks())


def _language(key: str) -> pa.Table:
    lemmas = entries(key)
    numbers = pa.array(NUMBERS, pa.string())
    new = lemmas.filter(pc.invert(pc.is_in(lemmas, value_set=numbers)))
    text = pa.concat_arrays([numbers, new])
    return pa.table(
        {
            "metadata": pa.repeat(pa.scalar(key, pa.string()), len(text)),
            "entry": pa.array(range(len(text)), pa.uint32()),
            "text": text,
            "source": pa.concat_arrays(
                [
                    pa.repeat(pa.scalar("", pa.string()), len(numbers)),
                    pa.repeat(pa.scalar("w", pa.string()), len(new)),
                ]
            ),
        }
    )
