"""Units over the shards of committed datasets, and the tables of a unit's shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import pyarrow as pa

from dataflows.engine.stage import Unit, shard_units
from schemas.dataset import open_dataset, shard_tables
from schemas.storage import storage
from schemas.writer import Shard


@dataclass(frozen=True)
class DatasetUnits:
    """One unit a shard of each dataset, in order; listed in a worker from the shard list.

    With ``limit`` only the first rows of each dataset, cut inside its last shard.
    """

    urls: tuple[str, ...]
    limit: int | None = None

    def __call__(self) -> Iterator[Unit]:
        for source, url in enumerate(self.urls):
            left = self.limit
            for unit in shard_units(open_dataset(url), source):
                if left is None:
                    yield unit
                    continue
                take = min(left, unit.args["rows"])
                left -= take
                yield Unit(unit.name, {**unit.args, "take": take})
                if left == 0:
                    break


def unit_tables(unit: Unit, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Tables of at most 32 MiB of the unit's shard, in row order."""
    args = unit.args
    shard = Shard(**{field.name: args[field.name] for field in fields(Shard)})
    left = args.get("take", shard.rows)
    for table in shard_tables(storage(args["url"]), args["schema"], shard, columns):
        if left <= 0:
            return
        yield table if table.num_rows <= left else table.slice(0, left)
        left -= table.num_rows
