"""Job: raw files to records, unit by unit. No row crosses a shuffle."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curation.ingest import IngestOptions, ReadUnit, find, grouped, notes, pin_sources, plan, read
from dataflows.engine.stage import JobContext, Unit
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.errors import InputError
from schemas.step import Outcome
from schemas.storage import Storage

_SMALL = 4
"""Inputs share a unit of work up to this fraction of ``unit_bytes``."""


@dataclass(frozen=True)
class _Listed:
    """Units as the launching command wrote them down: a list too long for a job graph."""

    storage: Storage
    key: str

    def __call__(self) -> Iterator[Unit]:
        for line in self.storage.read_bytes(self.key).splitlines():
            yield Unit.from_bytes(line)


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
    found = [pin.to_json() for pin in pinned.pins]
    for now, then in zip(found, context.stage.pinned, strict=True):
        if now != dict(then):
            raise InputError(f"{then['path']} changed while this command started: run it again")
    parts = plan(pinned, options)
    for note in notes(parts):
        print(f"reading {note}", file=sys.stderr)
    lines = []
    for number, group in enumerate(grouped(parts, options.unit_bytes // _SMALL)):
        unit = Unit(f"part-{number:08d}", {"parts": [part.to_json() for part in group]})
        lines.append(unit.to_bytes())
    data = b"\n".join(lines)
    # Named by its content: an attempt on moved or touched files does not meet another's list.
    name = hashlib.blake2b(data, digest_size=16).hexdigest()
    key = f".headrace/attempts/{context.key}/units/{name}.jsonl"
    context.storage.create(key, data)
    return RunUnits(_Listed(context.storage, key), _Read(config), sink)
