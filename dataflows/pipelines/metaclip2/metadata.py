"""Job: the shipped wordnets as a metadata dataset."""

from __future__ import annotations

from collections.abc import Iterator

from curation.metadata import builtin
from dataflows.engine.stage import JobContext, Unit
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.ledger import Ledger
from schemas.step import Outcome


def _one() -> Iterator[Unit]:
    yield Unit("builtin", {})


def _load(unit: Unit) -> Iterator[Outcome]:
    table = builtin.load()
    ledger = Ledger()
    ledger.add("entry", "created", "derived", table.num_rows)
    yield Outcome(table, ledger)


def builtin_metadata(context: JobContext, sink: Sink) -> RunUnits:
    """One unit: the shipped lists are small."""
    return RunUnits(_one, _load, sink)
