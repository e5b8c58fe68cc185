"""Job: the generated pool's records. Pictures are not drawn here; `curated` draws those it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curation.pool.config import PoolConfig
from curation.pool.generate import generate
from dataflows.engine.stage import JobContext, Unit
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome

_TABLE_ROWS = 5_000


@dataclass(frozen=True)
class _Ranges:
    pool: dict[str, Any]

    def __call__(self) -> Iterator[Unit]:
        for start in range(0, self.pool["records"], self.pool["unit"]):
            count = min(self.pool["unit"], self.pool["records"] - start)
            yield Unit(f"range-{start:012d}", {"start": start, "count": count})


@dataclass(frozen=True)
class _Generate:
    seed: int
    config: PoolConfig

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        start, count = unit.args["start"], unit.args["count"]
        for first in range(start, start + count, _TABLE_ROWS):
            table = generate(self.seed, first, min(_TABLE_ROWS, start + count - first), self.config)
            ledger = Ledger()
            ids = id_sum(table.column("image_id"))
            ledger.add("record", "created", "generated", table.num_rows, ids)
            yield Outcome(table, ledger)


def generated(context: JobContext, sink: Sink) -> RunUnits:
    """Units are ranges of record numbers; each record is a function of (seed, number)."""
    pool = dict(context.config["pool"])
    seed = context.stage.seed
    assert seed is not None
    shape = {
        name: pool[name] for name in ("zipf", "skew", "noise", "duplicates", "split", "concepts")
    }
    return RunUnits(_Ranges(pool), _Generate(seed, PoolConfig(**shape)), sink)
