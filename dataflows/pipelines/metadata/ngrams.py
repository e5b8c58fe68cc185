"""Job: unigrams and bigrams of Wikipedia dumps with exact counts, and the association of bigrams.

A unit is a dump file. Counts are summed inside the worker in tables of bounded size, then by hash
bucket of the *first* token: a bigram meets the count of its first token there. A second shuffle, by
the second token, gives the other count. A bucket must fit in a worker's memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.guard import guard
from curation.ingest.files import open_raw
from curation.metadata import ngrams
from curation.metadata.tokenizers import segmenter
from curation.metadata.wikipedia import Article, Dump, article_text, open_dump
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metadata.sources import Input, found_again
from dataflows.transforms.results import UnitResult
from dataflows.transforms.shuffle import TableCombine
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import Units
from schemas.errors import InputError
from schemas.ledger import Ledger
from schemas.step import Outcome, merge_stats
from schemas.table_schemas import DEAD_LETTERS, NGRAMS
from schemas.writer import ShardWriter

BATCH_CHARACTERS = 4 << 20
"""Wikitext that is counted at once."""
BATCH_ROWS = 1_000_000
"""Distinct n-grams of a unit that are held before they are sent."""
BY = ("wiki", "kind", "text")
_FRAGMENT = b"headrace.fragment"


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
    if not len(found):
        return
    for bucket, rows in zip(found, np.split(order, starts[1:]), strict=True):
        yield f"{bucket:06d}", table.take(pa.array(rows))


ARTICLES = pa.schema([("page", pa.int64()), ("title", pa.string()), ("wikitext", pa.string())])


def count_articles(articles: pa.Table, wiki: str, tokenizers: Mapping[str, str]) -> Outcome:
    """Counts (wiki, kind, text, count) of ARTICLES; each article is merged into them."""
    texts = [article_text(Article(**row)) for row in articles.select(ARTICLES.names).to_pylist()]
    counts = ngrams.count(pa.array(texts, pa.string()), segmenter(wiki, tokenizers))
    column = pa.repeat(pa.scalar(wiki, pa.string()), counts.num_rows)
    ledger = Ledger()
    ledger.add("record", "in", "", len(texts))
    ledger.add("record", "merged", "aggregated", len(texts))
    stats = {"wikis": {wiki: {"articles": len(texts), "characters": sum(map(len, texts))}}}
    return Outcome(counts.add_column(0, "wiki", column), ledger, stats=stats)


@dataclass(frozen=True)
class CountDump:
    """A dump to tables of (wiki, kind, text, count), each within `BATCH_ROWS` distinct rows.

    An article that cannot be parsed or segmented becomes a dead letter; the others are counted.
    """

    tokenizers: Mapping[str, str]
    limit: int | None

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        """Yield partial sums; the last outcome has no rows and says what was read."""
        source = Input(**unit.args).check()
        with open_raw(source.path) as raw:
            dump = open_dump(source.path, raw)
            held: list[Outcome] = []
            for batch in self._batches(dump, source.wiki):
                done = guard(
                    count_articles,
                    batch,
                    source.wiki,
                    self.tokenizers,
                    stage="ngrams",
                    unit="record",
                    source=source.path,
                    position_column="page",
                )
                held.append(done)
                if sum(one.table.num_rows for one in held) > BATCH_ROWS:
                    yield from _summed(held)
                    held = []
            yield from _summed(held)
            skipped = dict(sorted(dump.skipped.items()))
            read = {"files": 1, "pages": dump.pages, "skipped": skipped}
            empty = pa.schema([*((n, pa.string()) for n in BY), ("count", pa.uint64())])
            yield Outcome(empty.empty_table(), Ledger(), stats={"wikis": {source.wiki: read}})

    def _batches(self, dump: Dump, wiki: str) -> Iterator[pa.Table]:
        batch: list[Article] = []
        length = 0
        for number, article in enumerate(dump.articles()):
            if dump.wiki != wiki:
                raise InputError(
                    f"{dump.name}: the name says {wiki}, the dump's own header {dump.wiki}; rename "
                    "the file."
                )
            if self.limit is not None and number >= self.limit:
                break
            batch.append(article)
            length += len(article.wikitext)
            if length >= BATCH_CHARACTERS:
                yield pa.Table.from_pylist([vars(one) for one in batch], ARTICLES)
                batch, length = [], 0
        if batch:
            yield pa.Table.from_pylist([vars(one) for one in batch], ARTICLES)


def _summed(outcomes: list[Outcome]) -> Iterator[Outcome]:
    """The same outcomes, the first with the sum of all their tables."""
    if outcomes:
        total = ngrams.add([one.table for one in outcomes], BY)
        yield dataclasses.replace(outcomes[0], table=total)
        for one in outcomes[1:]:
            yield dataclasses.replace(one, table=total.slice(0, 0))


class _Count(beam.DoFn):
    """unit -> (bucket of the first token, counts); what was read leaves by the tag ``results``."""

    RESULTS = "results"

    def __init__(self, step: CountDump, buckets: int, sink: Sink) -> None:
        self._step = step
        self._buckets = buckets
        self._sink = sink

    def process(self, element: bytes) -> Iterator[object]:
        unit = Unit.from_bytes(element)
        result = UnitResult(f"read-{unit.name}")
        with ShardWriter(self._sink.dead_letters, DEAD_LETTERS) as dead:
            for outcome in self._step(unit):
                if outcome.dead is not None and outcome.dead.num_rows:
                    dead.write(outcome.dead)
                result.ledger.merge(outcome.ledger)
                result.stats = merge_stats(result.stats, outcome.stats)
                self._sink.report_progress(result.unit, result.ledger.count("record", "in"))
                table = outcome.table
                first = _token(table, 0)
                numbers = ngrams.buckets(_column(table, "wiki"), first, self._buckets)
                yield from split(table, numbers)
            result.dead = dead.close()
        self._sink.report_progress(result.unit, result.ledger.count("record", "in"), done=True)
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
        bucket, table = element
        unigrams = table.filter(pc.equal(table["kind"], "u"))
        known = ngrams.token_counts(table, _token(table, 0), unigrams)
        table = table.append_column("first", known)
        numbers = ngrams.buckets(_column(table, "wiki"), _token(table, 1), self._buckets)
        tag = {_FRAGMENT: bucket.encode()}
        for target, rows in split(table, numbers):
            yield target, rows.replace_schema_metadata(tag)


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
    """(bucket, fragments) -> unit result. A fragment that a retry delivers twice is taken once."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def process(self, element: tuple[str, Iterable[pa.Table]]) -> Iterator[bytes]:
        bucket, tables = element
        fragments = {table.schema.metadata[_FRAGMENT]: table for table in tables}
        whole = [fragments[tag].replace_schema_metadata(None) for tag in sorted(fragments)]
        outcome = scored(pa.concat_tables(whole))
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
            >> beam.ParDo(_Count(self._step, self._buckets, self._sink))
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
