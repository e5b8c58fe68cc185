"""Job: unigrams and bigrams of Wikipedia dumps with exact counts, and the association of bigrams.

A unit is a dump file. Counts are summed inside the worker in tables of bounded size, then by hash
bucket of the *first* token: a bigram meets the count of its first token there. A second shuffle, by
the second token, gives the other count. A bucket must fit in a worker's memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.ingest.files import open_raw
from curation.metadata import ngrams
from curation.metadata.tokenizers import segmenter
from curation.metadata.wikipedia import Dump, article_text, open_dump
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metadata.sources import Input, found_again
from dataflows.transforms.results import UnitResult
from dataflows.transforms.shuffle import TableCombine
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import Units
from schemas.errors import InputError
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import NGRAMS

BATCH_CHARACTERS = 4 << 20
"""Text that is counted at once."""
BATCH_ROWS = 1_000_000
"""Distinct n-grams of a unit that are held before they are sent."""
BY = ("wiki", "kind", "text")


@dataclass(frozen=True)
class InputUnits:
    """One unit a pinned file, in the order of paths."""

    inputs: tuple[Input, ...]

    def __call__(self) -> Iterator[Unit]:
        """Yield the units; their names are stable across runs."""
        for number, one in enumerate(self.inputs):
            yield Unit(f"file-{number:08d}", one.to_json())


def split(table: pa.Table, numbers: np.ndarray) -> Iterator[tuple[str, pa.Table]]:
    """(bucket, rows) for every bucket that occurs in `numbers`, rows in their order."""
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    for bucket, rows in zip(found, np.split(order, starts[1:]), strict=True):
        yield f"{bucket:06d}", table.take(pa.array(rows))


@dataclass(frozen=True)
class CountDump:
    """A dump to tables of (wiki, kind, text, count), each within `BATCH_ROWS` distinct rows."""

    tokenizers: Mapping[str, str]
    limit: int | None

    def __call__(self, unit: Unit, stats: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield partial sums; `stats` gets the counts of pages when the dump is read."""
        source = Input(**unit.args).check()
        with open_raw(source.path) as raw:
            dump = open_dump(source.path, raw)
            counts = {"files": 1, "articles": 0, "characters": 0}
            held: list[pa.Table] = []
            for batch in self._batches(dump, source.wiki):
                counts["articles"] += len(batch)
                counts["characters"] += sum(map(len, batch))
                held.append(self._count(batch, source.wiki))
                if sum(table.num_rows for table in held) > BATCH_ROWS:
                    held = [ngrams.add(held, BY)]
                if held[0].num_rows > BATCH_ROWS // 2:
                    yield ngrams.add(held, BY)
                    held = []
            if held:
                yield ngrams.add(held, BY)
            counts["pages"] = dump.pages
            skipped = dict(sorted(dump.skipped.items()))
            stats.update({"wikis": {source.wiki: {**counts, "skipped": skipped}}})

    def _batches(self, dump: Dump, wiki: str) -> Iterator[list[str]]:
        batch: list[str] = []
        length = 0
        for number, article in enumerate(dump.articles()):
            if dump.wiki != wiki:
                raise InputError(
                    f"{dump.name}: the name says {wiki}, the dump's own header {dump.wiki}; rename "
                    "the file."
                )
            if self.limit is not None and number >= self.limit:
                break
            batch.append(article_text(article))
            length += len(batch[-1])
            if length >= BATCH_CHARACTERS:
                yield batch
                batch, length = [], 0
        if batch:
            yield batch

    def _count(self, texts: list[str], wiki: str) -> pa.Table:
        counts = ngrams.count(pa.array(texts, pa.string()), segmenter(wiki, self.tokenizers))
        column = pa.repeat(pa.scalar(wiki, pa.string()), counts.num_rows)
        return counts.add_column(0, "wiki", column)


class _Count(beam.DoFn):
    """unit -> (bucket of the first token, counts); what was read leaves by the tag ``results``."""

    RESULTS = "results"

    def __init__(self, step: CountDump, buckets: int) -> None:
        self._step = step
        self._buckets = buckets

    def process(self, element: bytes) -> Iterator[object]:
        unit = Unit.from_bytes(element)
        result = UnitResult(f"read-{unit.name}")
        for table in self._step(unit, result.stats):
            first = _token(table, 0)
            yield from split(table, ngrams.buckets(_column(table, "wiki"), first, self._buckets))
        yield beam.pvalue.TaggedOutput(self.RESULTS, result.to_bytes())


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()


def _token(table: pa.Table, half: int) -> pa.Array:
    """The token by which a row is placed: the first or second of a bigram, or the unigram."""
    text = _column(table, "text")
    # Doubled, a unigram too has a second half: itself.
    doubled = pc.binary_join_element_wise(text, text, " ")
    return pc.list_element(pc.split_pattern(doubled, " "), half)


def _sum(table: pa.Table) -> pa.Table:
    return ngrams.add([table], BY)


class _First(beam.DoFn):
    """(bucket, exact counts) -> (bucket of the second token, counts with the first token's)."""

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets

    def process(self, element: tuple[str, pa.Table]) -> Iterator[tuple[str, pa.Table]]:
        _, table = element
        unigrams = table.filter(pc.equal(table["kind"], "u"))
        known = ngrams.token_counts(table, _token(table, 0), unigrams)
        table = table.append_column("first", known)
        numbers = ngrams.buckets(_column(table, "wiki"), _token(table, 1), self._buckets)
        yield from split(table, numbers)


def scored(table: pa.Table) -> Outcome:
    """The NGRAMS rows of a bucket by second token, with the totals of each Wikipedia."""
    is_pair = pc.equal(table["kind"], "b")
    unigrams = table.filter(pc.invert(is_pair))
    second = ngrams.token_counts(table, _token(table, 1), unigrams)
    score = ngrams.association(_column(table, "count"), _column(table, "first"), second)
    rows = pa.table(
        {
            **{name: table[name] for name in (*BY, "count")},
            "score": pc.if_else(is_pair, score, pa.scalar(None, pa.float64())),
        }
    ).sort_by([(name, "ascending") for name in BY])
    ledger = Ledger()
    ledger.add("entry", "created", "aggregated", rows.num_rows)
    return Outcome(NGRAMS.validate(rows), ledger, stats={"wikis": _totals(rows)})


def _totals(rows: pa.Table) -> dict[str, dict[str, int]]:
    grouped = rows.group_by(["wiki", "kind"]).aggregate([("count", "sum"), ("count", "count")])
    found: dict[str, dict[str, int]] = {}
    for row in grouped.to_pylist():
        wiki = found.setdefault(row["wiki"], {"tokens": 0, "unigrams": 0, "bigrams": 0})
        wiki["unigrams" if row["kind"] == "u" else "bigrams"] = row["count_count"]
        if row["kind"] == "u":
            wiki["tokens"] = row["count_sum"]
    return dict(sorted(found.items()))


class _Score(beam.DoFn):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def process(self, element: tuple[str, Iterable[pa.Table]]) -> Iterator[bytes]:
        bucket, tables = element
        outcome = scored(pa.concat_tables(tables))
        yield self._sink.write(f"bucket-{bucket}", [outcome]).to_bytes()


class _NgramsJob(beam.PTransform):
    def __init__(
        self, inputs: tuple[Input, ...], step: CountDump, buckets: int, sink: Sink
    ) -> None:
        super().__init__()
        self._units = InputUnits(inputs)
        self._step = step
        self._buckets = buckets
        self._sink = sink

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        counted = (
            pipeline
            | "Units" >> Units(self._units)
            | "Count"
            >> beam.ParDo(_Count(self._step, self._buckets))
            .with_output_types(tuple[str, pa.Table], **{_Count.RESULTS: bytes})
            .with_outputs(_Count.RESULTS, main="parts")
        )
        written = (
            counted.parts
            | "Sum"
            >> beam.CombinePerKey(TableCombine(_sum))
            .with_input_types(tuple[str, pa.Table])
            .with_output_types(tuple[str, pa.Table])
            | "First" >> beam.ParDo(_First(self._buckets)).with_output_types(tuple[str, pa.Table])
            | "Group" >> beam.GroupByKey()
            | "Score" >> beam.ParDo(_Score(self._sink)).with_output_types(bytes)
        )
        return (counted[_Count.RESULTS], written) | beam.Flatten()


def counted_ngrams(context: JobContext, sink: Sink) -> _NgramsJob:
    """Wikipedia dumps to NGRAMS rows of kinds u and b."""
    config = context.config
    step = CountDump(config["own_tokenizers"], config["limit"])
    inputs = found_again("wikipedia", context.stage.pinned)
    return _NgramsJob(inputs, step, config["buckets"], sink)
