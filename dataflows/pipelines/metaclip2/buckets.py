"""Ranges of ids: bucket b of N holds the ids whose leading 64 bits lie in [b/N, (b+1)/N) of their range.

Buckets in order, each sorted, are one sorted whole, and a range of ids is found without a search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.ids import id_words

BUCKET_BYTES = 128 * 2**20
SMALL_BUCKET_ROWS = 5_000


def bucket_count(rows: int, row_bytes: int) -> int:
    """Buckets so that one holds about 128 MiB: a function of the data, never of workers.

    Small inputs get up to eight, so that a laptop's cores have something to share.
    """
    few = min(8, -(-rows // SMALL_BUCKET_ROWS))
    return max(1, few, -(-rows * row_bytes // BUCKET_BYTES))


@dataclass(frozen=True)
class Buckets:
    """``count`` equal ranges of the id space."""

    count: int

    def of(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Bucket number of each id: int64[n]."""
        high = id_words(ids)[:, 0].byteswap()
        # 32 leading bits are plenty for up to a million buckets and keep the product in 64 bits.
        return ((high >> np.uint64(32)) * np.uint64(self.count) >> np.uint64(32)).astype(np.int64)

    def split(self, table: pa.Table, column: str) -> Iterator[tuple[str, pa.Table]]:
        """(bucket key, rows) for every bucket that ``table`` has rows of, rows in their order."""
        numbers = self.of(table.column(column))
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], np.arange(self.count + 1))
        for bucket in np.flatnonzero(np.diff(bounds)):
            rows = order[bounds[bucket] : bounds[bucket + 1]]
            yield f"{bucket:08d}", table.take(pa.array(rows))
