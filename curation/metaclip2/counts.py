"""How many texts each entry matches: sparse, exact, mergeable (MetaCLIP 2, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.table_schemas import COUNTS

_ENTRY_BITS = np.uint64(32)


@dataclass(frozen=True)
class LanguageCounts:
    """The matched entries of one metadata key: uint32[n] ascending, and uint64[n] above 0."""

    entries: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint64]

    @property
    def matches(self) -> int:
        """The sum of all counts (matches, not texts)."""
        return int(self.counts.sum())


def count(matches: pa.Table) -> pa.Table:
    """Return the COUNTS of a MATCHES table: texts (not occurrences, not images) of each entry."""
    entries = matches["entries"].combine_chunks()
    lengths = pc.list_value_length(entries).to_numpy()
    keys, codes = _codes(matches["metadata"])
    cells = _cells(np.repeat(codes, lengths), entries.flatten().to_numpy())
    found, counts = np.unique(cells, return_counts=True)
    return _table(keys, found, counts.astype(np.uint64))


def add(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the sum of COUNTS tables, in any order and cut anyhow; exact in uint64."""
    parts = list(tables)
    if not parts:
        return COUNTS.empty()
    table = pa.concat_tables(parts)
    keys, codes = _codes(table["metadata"])
    cells = _cells(codes, table["entry"].to_numpy())
    order = np.argsort(cells)
    cells = cells[order]
    first = np.flatnonzero(np.diff(cells, prepend=cells[:1] + np.uint64(1)))
    counts = table["count"].to_numpy()[order]
    sums = np.add.reduceat(counts, first) if len(first) else counts
    return _table(keys, cells[first], sums)


def of_tables(tables: Iterable[pa.Table]) -> dict[str, LanguageCounts]:
    """Return ``by_language`` of COUNTS tables cut anywhere, such as the row groups of a dataset."""
    return by_language(add(tables))


def by_language(table: pa.Table) -> dict[str, LanguageCounts]:
    """Return the COUNTS (or BALANCE) table, sorted by (metadata, entry), as one part a key."""
    keys, codes = _codes(table["metadata"])
    entries, counts = table["entry"].to_numpy(), table["count"].to_numpy()
    edges = np.searchsorted(codes, np.arange(len(keys) + 1))
    return {
        key: LanguageCounts(entries[a:b], counts[a:b])
        for key, a, b in zip(keys, edges[:-1], edges[1:], strict=True)
    }


def _codes(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.uint64]]:
    """Return the distinct keys, sorted, and the number of each row's key among them."""
    encoded = column.combine_chunks().dictionary_encode()
    rank = pc.rank(encoded.dictionary).to_numpy() - np.uint64(1)
    keys = encoded.dictionary.take(pc.array_sort_indices(encoded.dictionary)).to_pylist()
    return keys, rank[encoded.indices.to_numpy()].astype(np.uint64)


def _cells(
    codes: npt.NDArray[np.uint64], entries: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint64]:
    """Pack (key, entry) into one word that sorts like the pair."""
    return (codes << _ENTRY_BITS) | entries.astype(np.uint64)


def _table(
    keys: list[str], cells: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint64]
) -> pa.Table:
    codes = pa.array((cells >> _ENTRY_BITS).astype(np.int64))
    return pa.table(
        [pa.array(keys, pa.string()).take(codes), cells.astype(np.uint32), counts],
        schema=COUNTS.arrow,
    )
