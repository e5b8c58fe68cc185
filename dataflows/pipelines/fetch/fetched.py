"""Job: fetch unit by unit, then put neighbouring units together into shards.

lanes of units -> Fetch (each unit's files and its log, outside data/) -> plan of neighbours -> Join
-> data/, and what the results of all together warn of

A unit's log is created exclusively, so a unit that is there is never fetched again: not by a retried
or doubled bundle, not by the same command after a kill. From the logs on everything is deterministic.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.fetch.answers import ask
from dataflows.pipelines.fetch.packing import unit_runs
from dataflows.pipelines.fetch.refusals import WithWarnings
from dataflows.pipelines.metaclip2.pool import evaluation_sets
from dataflows.transforms.reading import Ref
from dataflows.transforms.results import UnitResult
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import Units
from schemas.commit import ATTEMPTS
from schemas.dataset import shard_tables
from schemas.errors import JobError, UsageError
from schemas.ids import id128, id_sum
from schemas.ledger import Ledger
from schemas.manifest import KEY, Manifest
from schemas.step import Outcome
from schemas.table_schemas import DEAD_LETTERS, FETCHED, SchemaSpec
from schemas.writer import Shard

GROUP_BYTES = 256 * 2**20
"""A group of neighbours is closed when it holds so many bytes; a unit more makes no second shard."""

_LEAST_BYTES = GROUP_BYTES // 2
_SHARD_BYTES = 2 * GROUP_BYTES
_SHOWN_SECONDS = 1.0


@dataclass(frozen=True)
class _Listed:
    """Lanes: units that one worker fetches one after the other, in the order of their names.

    A unit of whole hosts is a lane by itself. The units of a split host are dealt to at most
    ``at_once`` lanes, each of which takes that part of the host's rate and connections: however many
    workers there are, no more connections to the host are open than it may have.
    """

    units: Ref
    at_once: int

    def __call__(self) -> Iterator[Unit]:
        host: str | None = None
        together: list[list[Any]] = []
        for unit, of_host in self._units():
            if together and (of_host is None or of_host != host):
                yield from self._lanes(together)
                together = []
            host = of_host
            together.append(unit)
        if together:
            yield from self._lanes(together)

    def _lanes(self, units: list[list[Any]]) -> Iterator[Unit]:
        lanes = min(self.at_once, len(units))
        for number in range(lanes):
            mine = units[number::lanes]
            yield Unit(mine[0][0], {"units": mine, "share": lanes})

    def _units(self) -> Iterator[tuple[list[Any], str | None]]:
        """([name, parts], host if it is split); of the URLs only hosts are read."""
        dataset = self.units.open()
        name: str | None = None
        host: str | None = None
        parts: list[tuple[int, int, int]] = []
        for shard in range(len(dataset.shards())):
            start = 0
            for table in dataset.tables(columns=["unit", "host", "share"], shard=shard):
                first = 0
                for unit, rows in unit_runs(table["unit"]):
                    if unit != name:
                        if parts:
                            yield [name, parts], host
                        split = table["share"][first].as_py() > 1
                        host = table["host"][first].as_py() if split else None
                        name, parts = unit, []
                    parts.append((shard, start + first, rows))
                    first += rows
                start += table.num_rows
        if parts:
            yield [name, parts], host


@dataclass(frozen=True)
class _Attempts:
    """The results of units: their files, refusals and logs, all below the stage's attempts."""

    sink: Sink

    @property
    def logs(self) -> Sink:
        """The sink that a unit is written to."""
        root = self.sink.storage.at(ATTEMPTS, self.sink.key)
        return dataclasses.replace(
            self.sink, storage=root.at("fetched"), dead_letters=root.at("refused"), key="units"
        )

    def committed(self) -> bool:
        """Whether the stage is committed, so that whoever still works on it comes too late."""
        storage = self.sink.storage
        return storage.exists(KEY) and Manifest.load(storage).stage_key == self.sink.key

    def result(self, unit: str) -> UnitResult:
        """A unit's fixed result. Raises JobError if it is gone."""
        found = self.logs.finished(unit)
        if found is None:
            raise JobError(
                f"{self.sink.storage.url}: what unit {unit} fetched is gone; run the same command again"
            )
        return found


class _Fetch(beam.DoFn):
    """lane -> the name of each of its units and the bytes of its files, under one key."""

    def __init__(self, units: Ref, options: Mapping[str, Any], attempts: _Attempts) -> None:
        self._units = units
        self._options = options
        self._attempts = attempts

    def process(self, element: bytes) -> Iterator[tuple[str, bytes]]:
        lane = Unit.from_bytes(element)
        logs = self._attempts.logs
        for name, parts in lane.args["units"]:
            done = logs.finished(name)
            if done is None:
                if self._attempts.committed():
                    return
                done = logs.write(name, self._fetch(name, parts, lane.args["share"], logs))
            size = sum(shard.bytes for shard in done.shards)
            yield "", json.dumps([name, size]).encode()

    def _fetch(
        self, name: str, parts: Iterable[tuple[int, int, int]], share: int, logs: Sink
    ) -> Iterator[Outcome]:
        dataset = self._units.open()
        rows = pa.concat_tables(
            dataset.take(shard, np.arange(start, start + count)) for shard, start, count in parts
        )
        shown = time.monotonic()

        def report(through: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > _SHOWN_SECONDS:
                shown = time.monotonic()
                logs.report_progress(name, through)

        yield from ask(rows, self._options, share, report)


def groups(units: Iterable[tuple[str, int]]) -> list[list[str]]:
    """Neighbouring units (name, bytes) whose files make a shard of 128 to 512 MiB each.

    A function of the units alone, whatever order they come in; one that comes twice counts once.
    """
    found: list[list[str]] = []
    size = 0
    for name, count in sorted(set(units)):
        if not found or size >= GROUP_BYTES:
            found.append([])
            size = 0
        found[-1].append(name)
        size += count
    if len(found) > 1 and size < _LEAST_BYTES:
        last = found.pop()
        found[-1].extend(last)
    return found


class _Plan(beam.DoFn):
    """All units -> groups of neighbours."""

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[bytes]:
        _, units = element
        for number, names in enumerate(groups(tuple(json.loads(unit)) for unit in units)):
            # By its members too: what a run that was stopped joined otherwise is not of this one.
            members = id128(*(name.encode() for name in names)).hex()
            yield Unit(f"group-{number:08d}-{members}", {"units": names}).to_bytes()


class _Join(beam.DoFn):
    """Group -> unit result: the files of its units one after the other, less evaluation sets."""

    def __init__(self, attempts: _Attempts, sink: Sink, evaluation: Ref | None) -> None:
        self._attempts = attempts
        self._sink = sink
        self._evaluation = evaluation

    def process(self, element: bytes) -> Iterator[bytes]:
        group = Unit.from_bytes(element)
        done = self._sink.finished(group.name)
        if done is None:
            if self._attempts.committed():
                return
            done = self._sink.write(group.name, self._join(group))
        yield done.to_bytes()

    def _join(self, group: Unit) -> Iterator[Outcome]:
        logs = self._attempts.logs
        empty = FETCHED.empty()
        for unit in group.args["units"]:
            result = self._attempts.result(unit)
            result.ledger.remove("image", "out")
            yield Outcome(empty, result.ledger, stats=result.stats)
            for table in _tables(logs.storage, FETCHED, result.shards):
                yield self._wanted(table)
            for table in _tables(logs.dead_letters, DEAD_LETTERS, result.dead):
                yield Outcome(empty, Ledger(), table)

    def _wanted(self, table: pa.Table) -> Outcome:
        ledger = Ledger()
        if self._evaluation is None:
            return Outcome(table, ledger)
        found = evaluation_sets(self._evaluation).find(table)
        for reason, hit in (
            ("evaluation_set_url", found.url),
            ("evaluation_set_hash", found.hash & ~found.url),
        ):
            gone = table["image_id"].filter(pa.array(hit))
            ledger.add("image", "rejected", reason, len(gone), id_sum(gone))
        return Outcome(table.filter(pa.array(~(found.url | found.hash))), ledger)


def _tables(storage: Any, spec: SchemaSpec, shards: Iterable[Shard]) -> Iterator[pa.Table]:
    schema = {"name": spec.name, "version": spec.version}
    for shard in shards:
        yield from shard_tables(storage, schema, shard)


class FetchUnits(beam.PTransform):
    """Pipeline -> bytes (unit results, one a group of neighbours). Pictures cross no edge."""

    def __init__(
        self,
        units: Ref,
        options: Mapping[str, Any],
        evaluation: Ref | None,
        sink: Sink,
    ) -> None:
        super().__init__()
        self._units = units
        self._options = options
        self._evaluation = evaluation
        self._sink = sink

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        attempts = _Attempts(self._sink)
        # Groups are made of what was counted already: their progress would count it twice.
        joined = dataclasses.replace(self._sink, target_bytes=_SHARD_BYTES, progress_dir=None)
        fetch = _Fetch(self._units, self._options, attempts)
        lanes = min(self._options["connections"], self._options["units_at_once"])
        return (
            pipeline
            | "Units" >> Units(_Listed(self._units, lanes))
            | "Fetch" >> beam.ParDo(fetch).with_output_types(tuple[str, bytes])
            | "All" >> beam.GroupByKey()
            | "Plan" >> beam.ParDo(_Plan()).with_output_types(bytes)
            | "Spread" >> beam.Reshuffle()
            | "Join"
            >> beam.ParDo(_Join(attempts, joined, self._evaluation)).with_output_types(bytes)
            | "Warnings" >> WithWarnings()
        )


def fetched(context: JobContext, sink: Sink) -> FetchUnits:
    """Fetching, and the shards that are made of it.

    Raises UsageError where nothing says how many units run at once: limits of hosts hang on it.
    """
    evaluation = context.inputs.get("evaluation")
    options = {**context.config["options"], **context.stage.runtime}
    options["units_at_once"] = context.workers or options["units_at_once"]
    if options["units_at_once"] is None:
        raise UsageError(
            "units_at_once= is needed with this runner: at most how many units its workers fetch at once "
            "(workers times their threads), so that hosts are not asked more often than allowed"
        )
    return FetchUnits(
        Ref.of(context.inputs["units"]),
        options,
        Ref.of(evaluation) if evaluation is not None else None,
        sink,
    )
