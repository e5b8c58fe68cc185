"""Job: titles and their views, summed over hourly page-view files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa

from curation.ingest.files import open_raw
from curation.metadata import ngrams, pageviews
from curation.metadata.wikis import WIKIPEDIAS
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metadata.ngrams import InputUnits, split
from dataflows.pipelines.metadata.sources import Input, found_again
from dataflows.transforms.results import UnitResult
from dataflows.transforms.shuffle import TableCombine
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import Units
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import NGRAMS

BY = ("wiki", "text")


@dataclass(frozen=True)
class SumViews:
    """An hourly file to tables of (wiki, text, count)."""

    wikis: tuple[str, ...]
    minimum_hourly: Mapping[str, int]
    limit: int | None

    def __call__(self, unit: Unit, stats: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield the sums of each block; `stats` gets the lines that were left out, by reason."""
        source = Input(**unit.args).check()
        left_out: dict[str, int] = {}
        with open_raw(source.path) as raw:
            blocks = pageviews.first_lines(pageviews.blocks(source.path, raw), self.limit)
            for block in blocks:
                table, out = pageviews.views(block, self.wikis, self.minimum_hourly)
                for reason, number in out.items():
                    left_out[reason] = left_out.get(reason, 0) + number
                yield table
        stats.update({"files": 1, "lines_left_out": dict(sorted(left_out.items()))})


class _Sum(beam.DoFn):
    """unit -> (bucket, sums); what was read leaves by the tag ``results``."""

    RESULTS = "results"

    def __init__(self, step: SumViews, buckets: int) -> None:
        self._step = step
        self._buckets = buckets

    def process(self, element: bytes) -> Iterator[object]:
        unit = Unit.from_bytes(element)
        result = UnitResult(f"read-{unit.name}")
        for table in self._step(unit, result.stats):
            wikis, texts = (table[name].combine_chunks() for name in BY)
            yield from split(table, ngrams.buckets(wikis, texts, self._buckets))
        yield beam.pvalue.TaggedOutput(self.RESULTS, result.to_bytes())


def _fold(table: pa.Table) -> pa.Table:
    return ngrams.add([table], BY)


def rows(table: pa.Table) -> Outcome:
    """The NGRAMS rows of a bucket, with the totals of each Wikipedia."""
    table = table.add_column(1, "kind", pa.array(["t"] * table.num_rows, pa.string()))
    table = NGRAMS.validate(table.sort_by([(name, "ascending") for name in BY]))
    grouped = table.group_by("wiki").aggregate([("count", "sum"), ("count", "count")])
    totals = {
        row["wiki"]: {"titles": row["count_count"], "views": row["count_sum"]}
        for row in grouped.sort_by("wiki").to_pylist()
    }
    ledger = Ledger()
    ledger.add("entry", "created", "aggregated", table.num_rows)
    return Outcome(table, ledger, stats={"wikis": totals})


class _Write(beam.DoFn):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def process(self, element: tuple[str, pa.Table]) -> Iterator[bytes]:
        bucket, table = element
        yield self._sink.write(f"bucket-{bucket}", [rows(table)]).to_bytes()


class _TitlesJob(beam.PTransform):
    def __init__(self, inputs: tuple[Input, ...], step: SumViews, buckets: int, sink: Sink) -> None:
        super().__init__()
        self._units = InputUnits(inputs)
        self._step = step
        self._buckets = buckets
        self._sink = sink

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        summed = (
            pipeline
            | "Units" >> Units(self._units)
            | "Sum blocks"
            >> beam.ParDo(_Sum(self._step, self._buckets))
            .with_output_types(tuple[str, pa.Table], **{_Sum.RESULTS: bytes})
            .with_outputs(_Sum.RESULTS, main="parts")
        )
        written = (
            summed.parts
            | "Sum"
            >> beam.CombinePerKey(TableCombine(_fold))
            .with_input_types(tuple[str, pa.Table])
            .with_output_types(tuple[str, pa.Table])
            | "Write" >> beam.ParDo(_Write(self._sink)).with_output_types(bytes)
        )
        return (summed[_Sum.RESULTS], written) | beam.Flatten()


def summed_views(context: JobContext, sink: Sink) -> _TitlesJob:
    """Hourly files to NGRAMS rows of kind t."""
    config = context.config
    wikis = tuple(config["languages"] or WIKIPEDIAS)
    inputs = found_again("pageviews", context.stage.pinned)
    step = SumViews(wikis, config["minimum_hourly"], config["limit"])
    return _TitlesJob(inputs, step, config["buckets"], sink)
