"""Job: from the counts of all shards to a threshold a language and a probability an entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa

from curation.metaclip2.balance import balance_tables, metadata_sizes
from curation.metaclip2.counts import LanguageCounts, of_tables
from curation.metaclip2.probabilities import Probabilities
from curation.metaclip2.thresholds import Thresholds, find_thresholds, tail_before
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.automata import fingerprint, union_metadata
from dataflows.transforms.results import UnitResult
from dataflows.transforms.sink import Sink, scratch_dir
from dataflows.transforms.units import Units
from schemas.dataset import open_dataset
from schemas.errors import IntegrityError
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import BALANCE

BLOB = "probabilities"


def _one() -> Iterator[Unit]:
    yield Unit("all-languages", {})


@dataclass(frozen=True)
class _Balance:
    counts: str
    metadata: str
    matched: int | None  # matches that the counts must add up to; None when only valid ones count
    config: Mapping[str, Any]
    before: str | None = None  # the counts of all matches; None when `counts` are those

    def metadata_tables(self) -> Iterator[pa.Table]:
        """The lists that were matched: as they are, or their union without isolation."""
        if self.config["isolation"]:
            return open_dataset(self.metadata).tables()
        return iter((union_metadata(self.metadata),))

    def thresholds(self) -> tuple[dict[str, LanguageCounts], Thresholds]:
        counts = of_tables(open_dataset(self.counts).tables())
        counted = sum(c.matches for c in counts.values())
        if self.matched is not None and counted != self.matched:
            raise IntegrityError(
                f"balance: the counts add up to {counted:,} matches, but {self.matched:,} were written; "
                "thresholds would be wrong. Remove the dataset `counts` and run the recipe again"
            )
        found = find_thresholds(
            counts,
            metadata_sizes(self.metadata_tables()),
            p=self.config["p"],
            t_en=self.config["t_en"],
            threshold=self.config["threshold"],
            isolation=self.config["isolation"],
        )
        return counts, found

    def outcomes(self, counts: dict[str, LanguageCounts], found: Thresholds) -> Iterator[Outcome]:
        table = BALANCE.empty()
        for table in balance_tables(counts, found, self.metadata_tables()):
            ledger = Ledger()
            ledger.add("entry", "created", "derived", table.num_rows)
            yield Outcome(table, ledger)
        shown = {"mode": self.config["mode"], "isolation": self.config["isolation"]}
        stats = {**found.to_stats(), **shown}
        for key, losses in self._losses(counts, found):
            stats["languages"][key]["fetching"] = losses
        yield Outcome(table.slice(0, 0), Ledger(), stats=stats)

    def _losses(
        self, counts: dict[str, LanguageCounts], found: Thresholds
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """What only valid images leave of each language: its matches, and the mass of its tail."""
        if self.before is None:
            return
        before = of_tables(open_dataset(self.before).tables())
        for key, language in found.languages.items():
            share = tail_before(before[key], counts[key], language.t)
            yield (
                key,
                {
                    "before": {"matches": before[key].matches, "tail": share},
                    "after": {"matches": language.matches, "tail": language.tail},
                },
            )


class _Run(beam.DoFn):
    def __init__(self, step: _Balance, sink: Sink) -> None:
        self._step = step
        self._sink = sink

    def process(self, element: bytes) -> Iterator[bytes]:
        unit = Unit.from_bytes(element)
        done = self._sink.finished(unit.name)
        yield (done or self._balance(unit)).to_bytes()

    def _balance(self, unit: Unit) -> UnitResult:
        counts, found = self._step.thresholds()
        with scratch_dir() as scratch:
            path = Path(scratch) / "probabilities"
            Probabilities.of_counts(counts, found).write(path)
            blob = self._sink.put_blob(path)
        return self._sink.write(
            unit.name,
            self._step.outcomes(counts, found),
            blobs={BLOB: blob},
            warnings=found.warnings,
        )


class _BalanceJob(beam.PTransform):
    def __init__(self, step: _Balance, sink: Sink) -> None:
        super().__init__()
        self._step = step
        self._sink = sink

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        return (
            pipeline
            | "One" >> Units(_one)
            | "Balance" >> beam.ParDo(_Run(self._step, self._sink)).with_output_types(bytes)
        )


def _matches_counted(context: JobContext) -> int | None:
    """What `matches` says it wrote, if the counts run over all of it."""
    parents = {p["name"] for p in context.inputs["counts"].manifest.parents}
    if "valid" in parents:
        return None
    return int(context.inputs["matches"].manifest.stats.get("entries", 0))


def balance(context: JobContext, sink: Sink) -> _BalanceJob:
    """One unit: English must be known before any other language, and counts are sparse."""
    counted = context.inputs["counts"].manifest.stats.get("fingerprint")
    now = fingerprint(context.inputs["automata"].manifest)
    if counted is not None and counted != now:
        raise IntegrityError(
            f"balance: the counts were made with metadata of fingerprint {counted}, these automata have "
            f"{now}: entry numbers would mean other concepts. Run the recipe again from `matches`"
        )
    before = context.inputs.get("counts-before")
    step = _Balance(
        context.inputs["counts"].storage.url,
        context.inputs["metadata"].storage.url,
        _matches_counted(context),
        dict(context.config),
        before.storage.url if before is not None else None,
    )
    return _BalanceJob(step, sink)
