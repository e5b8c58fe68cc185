"""Job: raw files to records, unit by unit. No row crosses a shuffle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curation.ingest import IngestOptions, ReadUnit, find, pin_sources, plan, read
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.listed import check_same, listed
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.step import Outcome


@dataclass(frozen=True)
class _Read:
    options: dict[str, Any]

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        options = IngestOptions.from_json(self.options)
        for part in unit.args["parts"]:
            yield from read(ReadUnit.from_json(part), options)


def records(context: JobContext, sink: Sink) -> RunUnits:
    """Plans what to read, says so, and reads it. Raises InputError for what cannot be read."""
    config = {k: v for k, v in context.config.items() if k not in ("hash", "phash")}
    options = IngestOptions.from_json(config)
    paths = [str(pin["path"]) for pin in context.stage.pinned]
    pinned = pin_sources(find(paths, options.format))
    check_same(pinned, context.stage.pinned)
    units = listed(context, plan(pinned, options), options.unit_bytes)
    return RunUnits(units, _Read(config), sink)
