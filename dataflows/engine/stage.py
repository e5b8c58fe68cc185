"""What a recipe is made of: stages, and the units of work inside a stage. No Beam here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.dataset import Dataset
from schemas.storage import Storage


@dataclass(frozen=True)
class Stage:
    """One Beam job that ends in one commit.

    name       directory of the committed dataset under the run's output.
    schema     key of ``schemas.table_schemas.SCHEMAS``.
    inputs     names of other stages, or of the recipe's external datasets.
    config     semantic settings (JSON values): they enter the key and the digest.
    job        ``"module:function"``; imported only when the stage is due, so planning needs no Beam.
               The function takes a :class:`JobContext` and returns a ``beam.PTransform`` from a
               pipeline to unit results.
    libraries  distributions whose version decides the output.
    conserved  inputs whose rows must all be accounted for; none for jobs that aggregate.
    single     the job has one unit of work, so a local runner starts no worker processes for it.
    licences   of what the rows hold; inherited from the inputs besides.
    runtime    settings of how the job works, not of what it makes: in neither key nor digest, so that
               a job that was stopped goes on with others.
    """

    name: str
    schema: str
    inputs: tuple[str, ...]
    config: Mapping[str, Any]
    job: str
    libraries: tuple[str, ...] = ("pyarrow", "numpy")
    seed: int | None = None
    conserved: tuple[str, ...] = ()
    single: bool = False
    warnings: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    pinned: tuple[Mapping[str, Any], ...] = ()
    runtime: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module of the job, whose transitive source enters the key."""
        return self.job.partition(":")[0]


@dataclass(frozen=True)
class Wanted:
    """What an external dataset must be: its setting's name, its schema or else columns it must have."""

    setting: str
    schema: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The stages of one run in an order in which they can run, and the datasets they start from.

    ``wanted`` says of external datasets what they must be, so that a wrong one is refused before
    any stage runs.
    """

    recipe: str
    stages: tuple[Stage, ...]
    externals: Mapping[str, str] = field(default_factory=dict)  # name -> dataset location
    wanted: Mapping[str, Wanted] = field(default_factory=dict)

    def stage(self, name: str) -> Stage:
        """The stage of that name; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


@dataclass(frozen=True)
class JobContext:
    """What a stage's job function may look at when it wires its pipeline.

    ``workers``: how many units are worked on at once, None where the runner decides.
    """

    stage: Stage
    key: str
    storage: Storage
    dead_letters: Storage
    inputs: Mapping[str, Dataset]
    progress_dir: str | None = None
    limit: int | None = None
    workers: int | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """The stage's semantic settings."""
        return self.stage.config


@dataclass(frozen=True)
class Unit:
    """A piece of work whose rows go to shards of their own.

    ``name`` is stable across runs and decides the order of shards; ``args`` are JSON values.
    """

    name: str
    args: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The unit as an element of a pipeline."""
        return json.dumps([self.name, dict(self.args)], sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Unit:
        """The unit that ``to_bytes`` wrote."""
        name, args = json.loads(data)
        return cls(name, args)


def shard_units(dataset: Dataset, source: int = 0, prefix: str = "shard") -> Iterator[Unit]:
    """One unit for each shard of a committed dataset, in the order of its shard list."""
    for ordinal, shard in enumerate(dataset.shards()):
        yield Unit(
            f"{prefix}-{source:03d}-{ordinal:08d}",
            {
                "url": dataset.storage.url,
                "schema": dict(dataset.manifest.schema),
                "source": source,
                "shard": ordinal,
                "file": shard.file,
                "rows": shard.rows,
                "bytes": shard.bytes,
                "digest": shard.digest,
                "row_groups": shard.row_groups,
                "id_sum": shard.id_sum,
            },
        )
