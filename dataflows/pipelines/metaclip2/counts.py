"""Job: how many texts each entry matched, exact, by metadata key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from curation.metaclip2 import counts as counting
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.valid_rows import valid_tables
from dataflows.transforms.reading import DatasetUnits, Ref
from dataflows.transforms.shuffle import CombineUnits, TableCombine, by_value
from dataflows.transforms.sink import Sink
from schemas.ledger import Ledger
from schemas.step import Outcome


@dataclass(frozen=True)
class _Count:
    """Counts of one unit, summed inside the worker before anything is sent."""

    valid: Ref | None

    def __call__(self, unit: Unit) -> Iterator[tuple[str, pa.Table]]:
        total: pa.Table | None = None
        for table in valid_tables(unit, self.valid, ["pair_id", "image_id", "metadata", "entries"]):
            part = counting.count(table)
            total = part if total is None else counting.add([total, part])
        if total is not None:
            yield from by_value(total, "metadata")


def _fold(table: pa.Table) -> pa.Table:
    return counting.add([table])


def _rows(fingerprint: str, key: str, table: pa.Table) -> Outcome:
    table = table.sort_by([("metadata", "ascending"), ("entry", "ascending")])
    ledger = Ledger()
    ledger.add("entry", "created", "derived", table.num_rows)
    return Outcome(table, ledger, stats={"fingerprint": fingerprint})


def counts(context: JobContext, sink: Sink) -> CombineUnits:
    """Aggregated inside each unit, then combined by language; hot languages are fanned out."""
    units = DatasetUnits((Ref.of(context.inputs["matches"]),))
    valid = context.inputs.get("valid")
    step = _Count(Ref.of(valid) if valid is not None else None)
    rows = partial(_rows, context.inputs["matches"].manifest.stats.get("fingerprint", ""))
    return CombineUnits(units, step, TableCombine(_fold), rows, sink)
