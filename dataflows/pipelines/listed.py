"""Parts of an input as units of work, written down where workers find them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.ingest.sources import Pinned
from curation.ingest.units import ReadingUnit, grouped, notes
from dataflows.engine.stage import JobContext, Unit
from schemas.errors import InputError
from schemas.storage import Storage

SMALL = 4
"""Inputs share a unit of work up to this fraction of ``unit_bytes``."""


@dataclass(frozen=True)
class Listed:
    """Units as the launching command wrote them down: a list too long for a job graph."""

    storage: Storage
    key: str

    def __call__(self) -> Iterator[Unit]:
        for line in self.storage.read_bytes(self.key).splitlines():
            yield Unit.from_bytes(line)


def listed(context: JobContext, parts: Sequence[ReadingUnit], unit_bytes: int) -> Listed:
    """Say how parts are read, and write down their units: ``args`` hold ``parts`` as JSON."""
    for note in notes(parts):
        print(f"reading {note}", file=sys.stderr)
    lines = []
    for number, group in enumerate(grouped(parts, unit_bytes // SMALL)):
        unit = Unit(f"part-{number:08d}", {"parts": [part.to_json() for part in group]})
        lines.append(unit.to_bytes())
    data = b"\n".join(lines)
    # Named by its content: an attempt on moved or touched files does not meet another's list.
    name = hashlib.blake2b(data, digest_size=16).hexdigest()
    key = f".headrace/attempts/{context.key}/units/{name}.jsonl"
    context.storage.create(key, data)
    return Listed(context.storage, key)


def check_same(pinned: Pinned, pins: Sequence[Mapping[str, Any]]) -> None:
    """Raise InputError for an input that is not as a stage has pinned it."""
    for now, then in zip(pinned.pins, pins, strict=True):
        if now.to_json() != dict(then):
            raise InputError(
                f"{then['path']} is not what it was when it was pinned: restore it, or run again on what "
                "is there"
            )
