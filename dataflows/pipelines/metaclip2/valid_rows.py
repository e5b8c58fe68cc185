"""The list of valid images, applied to rows that are sorted by image id."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from functools import lru_cache

import pyarrow as pa

from curation.id_sets import IdSet
from curation.metaclip2.draw import keep_valid
from dataflows.engine.stage import Unit
from dataflows.transforms.reading import Ref, unit_tables
from schemas.ledger import Ledger
from schemas.step import Outcome


@lru_cache(maxsize=4)
def _first_ids(valid: Ref) -> list[bytes]:
    first = valid.open().manifest.stats.get("first", {})
    return [bytes.fromhex(value) for _, value in sorted(first.items())]


@lru_cache(maxsize=4)
def _shard_ids(valid: Ref, ordinal: int) -> pa.ChunkedArray:
    return valid.open().read_shard(ordinal).column("image_id")


@lru_cache(maxsize=4)
def _valid_shards(valid: Ref, start: int, stop: int) -> IdSet:
    return IdSet.of([_shard_ids(valid, ordinal) for ordinal in range(start, stop)])


def valid_between(valid: Ref, low: bytes, high: bytes) -> IdSet:
    """The valid ids of the shards that may hold ids in [low, high]; shards are ranges in order."""
    first = _first_ids(valid)
    start = max(bisect.bisect_right(first, low) - 1, 0)
    return _valid_shards(valid, start, bisect.bisect_right(first, high))


def only_valid(table: pa.Table, valid: Ref | None) -> Outcome:
    """Rows whose image is in the list; all of them without a list."""
    if valid is None or table.num_rows == 0:
        return Outcome(table, Ledger())
    ids = table.column("image_id")
    return keep_valid(table, valid_between(valid, ids[0].as_py(), ids[table.num_rows - 1].as_py()))


def valid_tables(unit: Unit, valid: Ref | None, columns: list[str]) -> Iterator[pa.Table]:
    """Tables of the unit's shard, restricted to valid images; needs image_id and pair_id."""
    for table in unit_tables(unit, columns=columns):
        yield only_valid(table, valid).table
