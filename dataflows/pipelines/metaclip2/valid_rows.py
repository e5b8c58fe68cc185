"""The list of valid images, applied to rows that are sorted by image id."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.id_sets import IdSet
from curation.metaclip2.draw import keep_valid
from dataflows.engine.stage import Unit
from dataflows.transforms.reading import Ref, unit_tables
from schemas.errors import IntegrityError
from schemas.ledger import Ledger
from schemas.step import Outcome

Numbers = npt.NDArray[np.int64]


@lru_cache(maxsize=4)
def _first_ids(valid: Ref) -> list[bytes]:
    first = valid.open().manifest.stats.get("first", {})
    return [bytes.fromhex(value) for _, value in sorted(first.items())]


@lru_cache(maxsize=4)
def _shard_ids(valid: Ref, ordinal: int) -> pa.ChunkedArray:
    return valid.open().read_shard(ordinal, ["image_id"]).column("image_id")


@lru_cache(maxsize=2)
def _shard_places(valid: Ref, ordinal: int) -> pa.Table:
    return valid.open().read_shard(ordinal)


@lru_cache(maxsize=4)
def _valid_shards(valid: Ref, start: int, stop: int) -> IdSet:
    return IdSet.of([_shard_ids(valid, ordinal) for ordinal in range(start, stop)])


def valid_between(valid: Ref, low: bytes, high: bytes) -> IdSet:
    """The valid ids of the shards that may hold ids in [low, high]; shards are ranges in order."""
    return _valid_shards(valid, *_range(valid, low, high))


def _range(valid: Ref, low: bytes, high: bytes) -> tuple[int, int]:
    """The first and one past the last shard that may hold ids in [low, high]."""
    first = _first_ids(valid)
    start = max(bisect.bisect_right(first, low) - 1, 0)
    return start, bisect.bisect_right(first, high)


def valid_places(valid: Ref, ids: pa.ChunkedArray) -> tuple[Numbers, Numbers]:
    """Shard and row of the picture of each id (ascending, all in the list): int64[n] twice.

    Raises IntegrityError for an id without a place.
    """
    start, stop = _range(valid, ids[0].as_py(), ids[len(ids) - 1].as_py())
    shard = np.full(len(ids), -1, np.int64)
    row = np.full(len(ids), -1, np.int64)
    for ordinal in range(start, stop):
        table = _shard_places(valid, ordinal)
        at = pc.index_in(ids, value_set=table["image_id"])
        here = np.flatnonzero(at.is_valid().to_numpy())
        found = table.select(["shard", "row"]).take(at.drop_null())
        shard[here] = found["shard"].fill_null(-1).to_numpy()
        row[here] = found["row"].fill_null(-1).to_numpy()
    if (row < 0).any():
        image = ids[int(np.argmax(row < 0))].as_py().hex()
        raise IntegrityError(
            f"image {image} is in no row of {valid.url} with a place, but its texts were counted: the "
            "datasets are not of one run; run the recipe again"
        )
    return shard, row


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
