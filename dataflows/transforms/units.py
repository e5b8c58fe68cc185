"""Running units of work: list them, spread them, run a step over each, fix its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam

from dataflows.engine.stage import Unit
from dataflows.transforms.results import UnitResult, merge_results
from dataflows.transforms.sink import Sink
from schemas.step import Outcome

ListUnits = Callable[[], Iterable[Unit]]
UnitStep = Callable[[Unit], Iterator[Outcome]]


class _List(beam.DoFn):
    def __init__(self, units: ListUnits) -> None:
        self._units = units

    def process(self, element: bytes) -> Iterator[bytes]:
        for unit in self._units():
            yield unit.to_bytes()


class Units(beam.PTransform):
    """Pipeline -> bytes (one encoded :class:`Unit` each), spread over workers.

    The list is made in the worker: a million units would not fit in a job graph.
    """

    def __init__(self, units: ListUnits) -> None:
        super().__init__()
        self._units = units

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        return (
            pipeline
            | beam.Impulse()
            | "List" >> beam.ParDo(_List(self._units)).with_output_types(bytes)
            | "Spread" >> beam.Reshuffle()
        )


class _Run(beam.DoFn):
    def __init__(self, step: UnitStep, sink: Sink) -> None:
        self._step = step
        self._sink = sink

    def process(self, element: bytes) -> Iterator[bytes]:
        unit = Unit.from_bytes(element)
        done = self._sink.finished(unit.name)
        yield (done or self._sink.write(unit.name, self._step(unit))).to_bytes()


class RunUnits(beam.PTransform):
    """Pipeline -> bytes (one encoded :class:`UnitResult` each): ``step`` over every unit, without a shuffle.

    Tables flow through ``step`` as a stream inside one DoFn, so they cross no edge and need no coder.
    """

    def __init__(self, units: ListUnits, step: UnitStep, sink: Sink) -> None:
        super().__init__()
        self._units = units
        self._step = step
        self._sink = sink

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        return (
            pipeline
            | "Units" >> Units(self._units)
            | "Run" >> beam.ParDo(_Run(self._step, self._sink)).with_output_types(bytes)
        )


class MergeResults(beam.CombineFn):
    """bytes (unit results) -> bytes (one result of the job). A unit that arrives twice counts once."""

    def create_accumulator(self) -> dict[str, bytes]:
        return {}

    def add_input(self, accumulator: dict[str, bytes], element: bytes) -> dict[str, bytes]:
        accumulator[UnitResult.from_bytes(element).unit] = element
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict[str, bytes]]) -> dict[str, bytes]:
        merged: dict[str, bytes] = {}
        for accumulator in accumulators:
            merged.update(accumulator)
        return merged

    def extract_output(self, accumulator: dict[str, bytes]) -> bytes:
        return merge_results(UnitResult.from_bytes(v) for v in accumulator.values()).to_bytes()


class _WriteResult(beam.DoFn):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def process(self, element: bytes) -> Iterator[bytes]:
        yield self._sink.fix(UnitResult.from_bytes(element)).to_bytes()


class RecordResult(beam.PTransform):
    """bytes (unit results) -> bytes: merges and records the job's result, from which the commit is made."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def expand(self, results: beam.PCollection[bytes]) -> beam.PCollection[bytes]:
        return (
            results
            | "Merge" >> beam.CombineGlobally(MergeResults()).with_output_types(bytes)
            | "Record" >> beam.ParDo(_WriteResult(self._sink)).with_output_types(bytes)
        )
