"""128-bit ids on NumPy words: their byte order, runs of equal ids, and sorted sets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.ids import ID_TYPE, id_words

Words = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
IdColumn: TypeAlias = pa.Array | pa.ChunkedArray


def sort_words(ids: IdColumn) -> tuple[Words, Words]:
    """Return (high, low) uint64[n]; comparing them in this order compares the ids' bytes."""
    words = id_words(ids).astype("<u8", copy=False).byteswap()
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])


def order_by(*columns: IdColumn | npt.NDArray) -> Indices:
    """Return the stable order of rows by columns of ids (as bytes) or numbers, the first first."""
    keys: list[npt.NDArray] = []
    for column in columns:
        keys.extend(sort_words(column) if not isinstance(column, np.ndarray) else (column,))
    return np.lexsort(keys[::-1])


def run_starts(ids: IdColumn) -> Indices:
    """Return the rows at which a run of equal ids begins (row 0 included; empty for no rows)."""
    words = id_words(ids)
    if len(words) == 0:
        return np.empty(0, np.int64)
    changes = (words[1:] != words[:-1]).any(axis=1)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


class IdSet:
    """A set of 128-bit ids, 16 bytes each, with vectorised membership."""

    def __init__(self, ids: IdColumn) -> None:
        high, low = sort_words(ids)
        order = np.lexsort((low, high))
        high, low = high[order], low[order]
        fresh = np.ones(len(high), bool)
        fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        self._high, self._low = high[fresh], low[fresh]

    @classmethod
    def of(cls, columns: Iterable[IdColumn]) -> IdSet:
        """Return the union of the ids of several columns."""
        chunks = [c for column in columns for c in getattr(column, "chunks", [column])]
        return cls(pa.chunked_array([c.cast(ID_TYPE) for c in chunks], ID_TYPE))

    def __len__(self) -> int:
        return len(self._high)

    def ids(self) -> pa.Array:
        """Return the ids in ascending order."""
        raw = np.stack([self._high, self._low], axis=1).byteswap().astype("<u8").tobytes()
        return pa.FixedSizeBinaryArray.from_buffers(ID_TYPE, len(self), [None, pa.py_buffer(raw)])

    def contains(self, ids: IdColumn) -> Bools:
        """Return bool[n]: which of ``ids`` (without nulls) are in the set."""
        high, low = sort_words(ids)
        at = np.searchsorted(self._high, high)
        found = np.zeros(len(high), bool)
        open_rows = np.arange(len(high))
        # Ids that share their first half are neighbours: one round each, in practice one in all.
        while len(open_rows):
            here = at[open_rows]
            inside = here < len(self._high)
            open_rows, here = open_rows[inside], here[inside]
            same = self._high[here] == high[open_rows]
            open_rows, here = open_rows[same], here[same]
            found[open_rows] = self._low[here] == low[open_rows]
            open_rows = open_rows[~found[open_rows]]
            at[open_rows] += 1
        return found
