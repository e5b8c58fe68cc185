"""Job: a bottom-k sample of each language's id sets, from which other thresholds are estimated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from curation.metaclip2 import sample as sampling
from curation.metaclip2.draw import image_texts, whole_images
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.valid_rows import valid_tables
from dataflows.transforms.reading import DatasetUnits, Ref
from dataflows.transforms.shuffle import CombineUnits, TableCombine, by_value
from dataflows.transforms.sink import Sink
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome

_COLUMNS = ["pair_id", "image_id", "metadata", "entries"]


@dataclass(frozen=True)
class _Sample:
    """The sample of one unit: a sample of the whole is a sample of the units' samples."""

    valid: Ref | None
    k: int

    def __call__(self, unit: Unit) -> Iterator[tuple[str, pa.Table]]:
        best: pa.Table | None = None
        for table in whole_images(valid_tables(unit, self.valid, _COLUMNS)):
            part = sampling.sample(table, image_texts(table), k=self.k)
            best = part if best is None else sampling.merge([best, part], k=self.k)
        if best is not None:
            yield from by_value(best, "metadata")


def _fold(k: int, table: pa.Table) -> pa.Table:
    return sampling.merge([table], k=k)


def _rows(key: str, table: pa.Table) -> Outcome:
    ledger = Ledger()
    ledger.add("text", "created", "derived", table.num_rows, id_sum(table.column("pair_id")))
    return Outcome(table, ledger)


def sample(context: JobContext, sink: Sink) -> CombineUnits:
    """At most k texts a language leave a unit, and at most k arrive."""
    k = context.config["sample"]
    valid = context.inputs.get("valid")
    step = _Sample(Ref.of(valid) if valid is not None else None, k)
    units = DatasetUnits((Ref.of(context.inputs["matches"]),))
    return CombineUnits(units, step, TableCombine(partial(_fold, k)), _rows, sink)
