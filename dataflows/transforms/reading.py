"""Units over the shards of committed datasets, and the tables of a unit's shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

import pyarrow as pa

from dataflows.engine.stage import Unit, shard_units
from schemas.dataset import Dataset, open_dataset, shard_tables
from schemas.errors import IntegrityError
from schemas.storage import storage
from schemas.writer import Shard


@dataclass(frozen=True)
class Ref:
    """A dataset as it was when the job was planned: a worker that finds another one stops."""

    url: str
    digest: str

    @classmethod
    def of(cls, dataset: Dataset) -> Ref:
        """The reference of an open dataset."""
        return cls(dataset.storage.url, dataset.manifest.digest)

    def open(self) -> Dataset:
        """The dataset, opened once a process. Raises IntegrityError if it was replaced meanwhile."""
        return _opened(self.url, self.digest)


@lru_cache(maxsize=16)
def _opened(url: str, digest: str) -> Dataset:
    dataset = open_dataset(url)
    if dataset.manifest.digest != digest:
        raise IntegrityError(
            f"{url} holds {dataset.manifest.digest[:12]} by now, but this job was planned with "
            f"{digest[:12]}: another run replaced it meanwhile. Run the same command again"
        )
    return dataset


@dataclass(frozen=True)
class DatasetUnits:
    """One unit a shard of each dataset, in order; listed in a worker from the shard list.

    With ``limit`` only the first rows of each dataset, cut inside its last shard.
    """

    datasets: tuple[Ref, ...]
    limit: int | None = None

    def __call__(self) -> Iterator[Unit]:
        for source, ref in enumerate(self.datasets):
            left = self.limit
            for unit in shard_units(ref.open(), source):
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
