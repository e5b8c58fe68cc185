"""Grouping of tables by bucket: each unit's tables are split, regrouped, and written one bucket a unit."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from dataflows.engine.stage import Unit
from dataflows.transforms import coder
from dataflows.transforms.results import UnitResult
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import ListUnits, Units, UnitStep
from schemas.step import Outcome, merge_stats
from schemas.table_schemas import SCHEMAS
from schemas.writer import ShardWriter

BUCKET_WIDTH = 8
_TAG = b"headrace.fragment"
_HELD_BYTES = 128 * 2**20
_SEPARATOR = "\x1f"

Split = Callable[[pa.Table], Iterable[tuple[str, pa.Table]]]
Reduce = Callable[[str, pa.Table], Outcome]


@dataclass(frozen=True)
class Shuffle:
    """The two ends of a shuffle: ``split`` a table into (key, table) parts, ``reduce`` a key's rows."""

    split: Split
    reduce: Reduce


def by_value(table: pa.Table, column: str) -> Iterator[tuple[str, pa.Table]]:
    """(value, rows) for every value of a string column, values ascending, rows in their order."""
    encoded = table.column(column).combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy()
    for value in sorted(values):
        yield value, table.take(pa.array(np.flatnonzero(codes == values.index(value))))


class _Map(beam.DoFn):
    """unit -> (key, table) parts; the unit's counts and dead letters leave by the tag ``results``."""

    RESULTS = "results"

    def __init__(self, step: UnitStep, split: Split, sink: Sink) -> None:
        self._step = step
        self._split = split
        self._sink = sink

    def process(self, element: bytes) -> Iterator[object]:
        unit = Unit.from_bytes(element)
        result = UnitResult(f"map-{unit.name}")
        waiting: dict[str, list[pa.Table]] = {}
        sent = itertools.count()
        held = 0
        with ShardWriter(self._sink.dead_letters, SCHEMAS["dead_letters"]) as dead:
            for outcome in self._step(unit):
                if outcome.dead is not None and outcome.dead.num_rows:
                    dead.write(outcome.dead)
                result.ledger.merge(outcome.ledger)
                result.stats = merge_stats(result.stats, outcome.stats)
                for key, part in self._split(outcome.table):
                    if part.num_rows:
                        waiting.setdefault(key, []).append(part)
                        held += part.nbytes
                if held > _HELD_BYTES:
                    yield from self._send(unit.name, waiting, sent)
                    held = 0
            yield from self._send(unit.name, waiting, sent)
            result.dead = dead.close()
        result.sent = result.ledger.remove(SCHEMAS[self._sink.schema].unit, "out")
        yield beam.pvalue.TaggedOutput(self.RESULTS, result.to_bytes())

    @staticmethod
    def _send(
        unit: str, waiting: dict[str, list[pa.Table]], numbers: Iterator[int]
    ) -> Iterator[tuple[str, pa.Table]]:
        """One fragment a key: with thousands of keys a table has few rows of each."""
        for key in sorted(waiting):
            tag = f"{unit}/{next(numbers):08d}".encode()
            yield key, pa.concat_tables(waiting[key]).replace_schema_metadata({_TAG: tag})
        waiting.clear()


class _Reduce(beam.DoFn):
    """(key, tables) -> unit result. A fragment that a retry delivers twice is taken once."""

    def __init__(self, reduce: Reduce, sink: Sink) -> None:
        self._reduce = reduce
        self._sink = sink

    def process(self, element: tuple[str, Iterable[pa.Table]]) -> Iterator[bytes]:
        key, tables = element
        unit = f"reduce-{key}"
        done = self._sink.finished(unit)
        if done is None:
            fragments = {table.schema.metadata[_TAG]: table for table in tables}
            whole = pa.concat_tables(
                [fragments[tag].replace_schema_metadata(None) for tag in sorted(fragments)]
            )
            fragments.clear()
            done = self._sink.write(unit, [self._reduce(key, whole)], received=True)
        yield done.to_bytes()


class ShuffleUnits(beam.PTransform):
    """Pipeline -> bytes (unit results): ``step`` over units, then one unit of output for each key.

    A key's rows must fit in a worker's memory: choose keys so that they hold a shard's worth.
    """

    def __init__(self, units: ListUnits, step: UnitStep, shuffle: Shuffle, sink: Sink) -> None:
        super().__init__()
        self._units = units
        self._step = step
        self._shuffle = shuffle
        self._sink = sink

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        mapped = (
            pipeline
            | "Units" >> Units(self._units)
            | "Map"
            >> beam.ParDo(_Map(self._step, self._shuffle.split, self._sink))
            .with_output_types(tuple[str, pa.Table], **{_Map.RESULTS: bytes})
            .with_outputs(_Map.RESULTS, main="parts")
        )
        reduced = (
            mapped.parts
            | "Group" >> beam.GroupByKey()
            | "Reduce"
            >> beam.ParDo(_Reduce(self._shuffle.reduce, self._sink)).with_output_types(bytes)
        )
        results = mapped[_Map.RESULTS] | "Counts" >> beam.Map(lambda b: b).with_output_types(bytes)
        return (results, reduced) | beam.Flatten()


class CombineUnits(beam.PTransform):
    """Pipeline -> bytes (unit results): (key, table) parts of every unit are combined by ``combine``.

    ``emit(unit)`` yields the parts; ``combine`` is a CombineFn over tables whose result is small enough
    for one worker; hot keys are fanned out. One unit of output for each key.
    """

    FANOUT = 8

    def __init__(
        self,
        units: ListUnits,
        emit: Callable[[Unit], Iterator[tuple[str, pa.Table]]],
        combine: beam.CombineFn,
        reduce: Reduce,
        sink: Sink,
    ) -> None:
        super().__init__()
        self._units = units
        self._emit = emit
        self._combine = combine
        self._reduce = reduce
        self._sink = sink

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        return (
            pipeline
            | "Units" >> Units(self._units)
            | "Emit"
            >> beam.ParDo(_Emit(self._emit, self.FANOUT)).with_output_types(tuple[str, pa.Table])
            | "Partly" >> self._per_key()
            | "Unsalt" >> beam.MapTuple(_unsalt).with_output_types(tuple[str, pa.Table])
            | "Wholly" >> self._per_key()
            | "Write" >> beam.ParDo(_WriteKey(self._reduce, self._sink)).with_output_types(bytes)
        )

    def _per_key(self) -> beam.PTransform:
        return (
            beam.CombinePerKey(self._combine)
            .with_input_types(tuple[str, pa.Table])
            .with_output_types(tuple[str, pa.Table])
        )


def _unsalt(key: str, table: pa.Table) -> tuple[str, pa.Table]:
    return key.partition(_SEPARATOR)[0], table


class _Emit(beam.DoFn):
    """unit -> (salted key, table): a hot key (English) is combined by several workers first.

    Beam's own fanout would pickle the tables. The salt is a function of the unit's name.
    """

    def __init__(self, emit: Callable[[Unit], Iterator[tuple[str, pa.Table]]], fanout: int) -> None:
        self._emit = emit
        self._fanout = fanout

    def process(self, element: bytes) -> Iterator[tuple[str, pa.Table]]:
        unit = Unit.from_bytes(element)
        salt = zlib.crc32(unit.name.encode()) % self._fanout
        for key, table in self._emit(unit):
            yield f"{key}{_SEPARATOR}{salt}", table


class _WriteKey(beam.DoFn):
    def __init__(self, reduce: Reduce, sink: Sink) -> None:
        self._reduce = reduce
        self._sink = sink

    def process(self, element: tuple[str, pa.Table]) -> Iterator[bytes]:
        key, table = element
        yield self._sink.write(f"key-{key}", [self._reduce(key, table)]).to_bytes()


@beam.typehints.with_input_types(pa.Table)
@beam.typehints.with_output_types(pa.Table)
class TableCombine(beam.CombineFn):
    """CombineFn over tables: parts are concatenated and folded by ``fold`` when they pass ``limit`` rows.

    ``fold`` must be associative and commutative up to the order of rows, and make the table smaller
    (sum of counts by key, bottom-k), so an accumulator stays sparse and bounded by the distinct keys.
    """

    def __init__(self, fold: Callable[[pa.Table], pa.Table], limit: int = 2_000_000) -> None:
        self._fold = fold
        self._limit = limit

    def create_accumulator(self) -> list[pa.Table]:
        return []

    def add_input(self, accumulator: list[pa.Table], element: pa.Table) -> list[pa.Table]:
        accumulator.append(element)
        fresh = sum(t.num_rows for t in accumulator[1:])
        if fresh > max(self._limit, accumulator[0].num_rows):
            return [self._fold(pa.concat_tables(accumulator))]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[pa.Table]]) -> list[pa.Table]:
        merged: list[pa.Table] = []
        for accumulator in accumulators:
            for table in accumulator:
                merged = self.add_input(merged, table)
        return merged

    def compact(self, accumulator: list[pa.Table]) -> list[pa.Table]:
        return [self._fold(pa.concat_tables(accumulator))] if accumulator else []

    def extract_output(self, accumulator: list[pa.Table]) -> pa.Table:
        return self._fold(pa.concat_tables(accumulator))

    def get_accumulator_coder(self) -> beam.coders.Coder:
        return beam.coders.IterableCoder(coder.ArrowTableCoder())
