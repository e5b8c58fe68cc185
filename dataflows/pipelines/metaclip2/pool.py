"""Job: records to single texts, brought together by image and deduplicated. No picture is shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from curation.evaluation_sets import EvaluationSets
from curation.guard import guard
from curation.metaclip2.dedup import deduplicate
from curation.metaclip2.explode import explode
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.buckets import Buckets, bucket_count
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from schemas.step import Outcome

_COLUMNS = ["image_id", "url", "texts", "sha256", "phash", "score", "file", "position"]
ROW = "headrace.row"
"""Column of row numbers that steps carry for their dead letters."""
_RECORD_BYTES = 1024


@lru_cache(maxsize=1)
def evaluation_sets(ref: Ref) -> EvaluationSets:
    """What must not be in the pool, from the columns that the dataset has; built once a process."""
    dataset = ref.open()
    columns = [c for c in ("url", "sha256", "phash") if c in dataset.schema.names]
    return EvaluationSets.of(dataset.tables(columns=columns))


def _explode(table: pa.Table, source: int, shard: int, **settings: Any) -> Outcome:
    """``explode`` that takes row numbers from a column, so the table may be cut anywhere."""
    first = table.column(ROW)[0].as_py() if table.num_rows else 0
    return explode(table.drop_columns([ROW]), source, shard, first, **settings)


@dataclass(frozen=True)
class _Explode:
    """The step over a shard of records."""

    max_text_bytes: int
    min_score: float | None
    evaluation: Ref | None

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        row = 0
        for table in unit_tables(unit, columns=_COLUMNS):
            numbers = pa.array(np.arange(row, row + table.num_rows))
            row += table.num_rows
            yield guard(
                _explode,
                table.append_column(ROW, numbers),
                unit.args["source"],
                unit.args["shard"],
                stage="pool",
                unit="record",
                id_column="image_id",
                source=f"{unit.args['source']}/{unit.args['shard']}",
                position_column=ROW,
                max_text_bytes=self.max_text_bytes,
                min_score=self.min_score,
                evaluation=evaluation_sets(self.evaluation) if self.evaluation else None,
            )


@dataclass(frozen=True)
class _ByImage:
    buckets: Buckets

    def __call__(self, table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
        return self.buckets.split(table, "image_id")


def _reduce(key: str, table: pa.Table) -> Outcome:
    return deduplicate(table)


def pool(context: JobContext, sink: Sink) -> ShuffleUnits:
    """All texts of an image meet in one bucket, so duplicates and an image's other texts do too."""
    names = [name for name in context.stage.inputs if name != "evaluation"]
    inputs = [context.inputs[name] for name in names]
    rows = sum(dataset.manifest.rows for dataset in inputs)
    buckets = Buckets(context.config["buckets"] or bucket_count(rows, _RECORD_BYTES))
    units = DatasetUnits(tuple(Ref.of(dataset) for dataset in inputs), context.config["limit"])
    evaluation = context.inputs.get("evaluation")
    step = _Explode(
        context.config["max_text_bytes"],
        context.config["min_score"],
        Ref.of(evaluation) if evaluation is not None else None,
    )
    return ShuffleUnits(units, step, Shuffle(_ByImage(buckets), _reduce), sink)
