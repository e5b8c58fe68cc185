"""Removal of evaluation sets from a pool: by URL, by exact hash and by perceptual hash.

A record is removed if its URL is that of an evaluation image, if the SHA-256 of its bytes equals
one, or if its perceptual hash (64 bits, ``curation.images``) differs from one in at most
``max_bits`` bits. Pools of bare URLs have no hashes: for them only the first rule acts, and
``Found.hashed`` says how many records the other two could look at.

Differs from MetaCLIP 2, appendix A.2, which hashes features of a similarity model to 64 bits: no
model runs here, so crops and heavy edits are not recognised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.id_sets import Bools, IdSet, Words
from schemas.errors import InputError, UsageError
from schemas.ids import ID_TYPE, image_ids_of_urls

DEFAULT_MAX_BITS = 4
"""Two pictures are taken for the same if their perceptual hashes differ in so many bits."""

_LEAST_BITS_SET = 16
_FIELDS = pa.schema([("kind", pa.string()), ("value", pa.binary())])


def canonical_urls(urls: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return URLs without scheme and fragment and with a lower-case host; null stays null.

    Two spellings that this makes equal may in rare cases be two pictures: one too many is removed.
    """
    bare = pc.replace_substring_regex(urls, r"(?s)^[A-Za-z][A-Za-z0-9+.-]*://|#.*$", "")
    host_end = pc.find_substring(bare, "/")
    host = pc.if_else(pc.less(host_end, 0), bare, pc.replace_substring_regex(bare, r"(?s)/.*$", ""))
    path = pc.replace_substring_regex(bare, r"(?s)^[^/]*", "")
    return pc.binary_join_element_wise(pc.utf8_lower(host), path, "")


class _NearHashes:
    """uint64 hashes with a search for all within ``bits``: equal in one of bits + 1 bands."""

    def __init__(self, hashes: Words, bits: int) -> None:
        # A picture without structure (one colour) has few bits set and is near all its like.
        self.hashes = np.unique(hashes[np.bitwise_count(hashes) >= _LEAST_BITS_SET])
        self.bits = bits
        edges = np.linspace(0, 64, bits + 2).astype(int)
        self._bands = []
        for low, high in pairwise(edges):
            shift, mask = np.uint64(low), np.uint64((1 << int(high - low)) - 1)
            keys = (self.hashes >> shift) & mask
            order = np.argsort(keys, kind="stable")
            self._bands.append((shift, mask, keys[order], self.hashes[order]))

    def near(self, hashes: Words) -> Bools:
        found = np.zeros(len(hashes), bool)
        for shift, mask, keys, values in self._bands:
            wanted = (hashes >> shift) & mask
            first = np.searchsorted(keys, wanted, "left")
            counts = np.searchsorted(keys, wanted, "right") - first
            counts[found] = 0
            for rows in _slices(counts):
                n = counts[rows]
                within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
                candidates = values[np.repeat(first[rows], n) + within]
                owner = np.repeat(np.arange(rows.start, rows.stop), n)
                far = np.bitwise_count(candidates ^ hashes[owner])
                found[owner[far <= self.bits]] = True
        return found


def _slices(counts: npt.NDArray[np.int64], limit: int = 1 << 22) -> list[slice]:
    """Cut rows so that each slice compares about ``limit`` candidates at most."""
    total = np.cumsum(counts)
    if len(total) == 0 or total[-1] == 0:
        return []
    cuts = np.searchsorted(total, np.arange(limit, total[-1], limit), "left") + 1
    edges = np.unique(np.concatenate([[0], cuts, [len(counts)]]))
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


@dataclass(frozen=True)
class Found:
    """Which rows belong to an evaluation set (bool[n] each), and which had a hash to look at."""

    url: Bools
    exact: Bools
    perceptual: Bools
    hashed: Bools

    @property
    def hash(self) -> Bools:
        """Rows found by either hash."""
        return self.exact | self.perceptual


class EvaluationSets:
    """What is to be kept out of a pool. Built from tables with columns url, sha256, phash.

    Columns may be missing or null; a table with none of the three is an InputError.
    """

    def __init__(
        self, urls: IdSet, exact: IdSet, phashes: Words, *, max_bits: int = DEFAULT_MAX_BITS
    ) -> None:
        if not 0 <= max_bits <= 15:
            raise UsageError(
                f"max_bits is {max_bits}: two different pictures differ in about 32 of 64 bits, "
                "so the limit is 0 to 15 (default 4)"
            )
        self.urls, self.exact, self.max_bits = urls, exact, max_bits
        self._near = _NearHashes(phashes, max_bits)

    @classmethod
    def of(cls, tables: Iterable[pa.Table], *, max_bits: int = DEFAULT_MAX_BITS) -> EvaluationSets:
        """Build from tables, such as those of ingested evaluation sets (schema ``records``)."""
        urls, exact, phashes = [], [], []
        for table in tables:
            present = [c for c in ("url", "sha256", "phash") if c in table.column_names]
            if not present:
                raise InputError(
                    "an evaluation set needs a column url, sha256 or phash, but has "
                    f"{', '.join(table.column_names) or 'none'}: ingest its images first"
                )
            if "url" in present:
                urls.append(_url_ids(table["url"].drop_null()))
            if "sha256" in present:
                exact.append(_exact_ids(table["sha256"].drop_null()))
            if "phash" in present:
                phashes.append(table["phash"].drop_null().to_numpy().astype(np.uint64))
        merged = np.concatenate(phashes) if phashes else np.empty(0, np.uint64)
        return cls(IdSet.of(urls), IdSet.of(exact), merged, max_bits=max_bits)

    def find(self, table: pa.Table) -> Found:
        """Look at the columns url, sha256 and phash of a table; a missing one finds nothing."""
        n = table.num_rows
        hashed = np.zeros(n, bool)
        url, exact, perceptual = hashed.copy(), hashed.copy(), hashed.copy()
        if "url" in table.column_names and len(self.urls):
            rows = _valid(table["url"])
            url[rows] = self.urls.contains(_url_ids(table["url"].drop_null()))
        if "sha256" in table.column_names:
            rows = _valid(table["sha256"])
            hashed[rows] = True
            exact[rows] = self.exact.contains(_exact_ids(table["sha256"].drop_null()))
        if "phash" in table.column_names:
            rows = _valid(table["phash"])
            hashed[rows] = True
            values = table["phash"].drop_null().to_numpy().astype(np.uint64)
            perceptual[rows] = self._near.near(values)
        return Found(url, exact, perceptual, hashed)

    def write(self, path: Path) -> None:
        """Write the sets as one Arrow file, equal for equal sets, that workers can open."""
        parts = [
            ("url", self.urls.ids()),
            ("exact", self.exact.ids()),
            (
                "phash",
                pa.array([int(h).to_bytes(8, "big") for h in self._near.hashes], pa.binary()),
            ),
        ]
        schema = _FIELDS.with_metadata({"max_bits": str(self.max_bits)})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for kind, values in parts:
                kinds = pa.array([kind] * len(values), pa.string())
                writer.write_table(pa.table([kinds, values.cast(pa.binary())], schema=schema))

    @classmethod
    def open(cls, path: Path) -> EvaluationSets:
        """Read what ``write`` wrote."""
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()

        def values(kind: str) -> pa.ChunkedArray:
            return table.filter(pc.equal(table["kind"], kind))["value"]

        near = [int.from_bytes(v.as_py(), "big") for v in values("phash")]
        max_bits = int(table.schema.metadata[b"max_bits"])
        urls, exact = IdSet.of([values("url")]), IdSet.of([values("exact")])
        return cls(urls, exact, np.array(near, np.uint64), max_bits=max_bits)


def _url_ids(urls: pa.ChunkedArray) -> pa.Array:
    return image_ids_of_urls(canonical_urls(urls))


def _exact_ids(hashes: pa.ChunkedArray) -> pa.ChunkedArray:
    # Half of a SHA-256 identifies as well as any id of the project.
    return pc.binary_slice(hashes.cast(pa.binary()), 0, 16).cast(ID_TYPE)


def _valid(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.flatnonzero(column.is_valid().to_numpy())
