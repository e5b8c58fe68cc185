"""Job: files of text to documents, unit by unit. No row crosses a shuffle."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from curation.text.chat import renderer
from curation.text.documents import Sieve, read_documents
from curation.text.options import TextOptions
from curation.text.plan import TextUnit, grouped, notes, plan_texts
from curation.text.reading import Render
from curation.text.sources import find_texts, pin_texts, unrun
from dataflows.engine.stage import JobContext, Unit
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.errors import InputError
from schemas.step import Outcome
from schemas.storage import Storage

_SMALL = 4
"""Files share a unit of work up to this fraction of ``unit_bytes``."""


@dataclass(frozen=True)
class _Listed:
    """Units as the launching command wrote them down: a list too long for a job graph."""

    storage: Storage
    key: str

    def __call__(self) -> Iterator[Unit]:
        for line in self.storage.read_bytes(self.key).splitlines():
            yield Unit.from_bytes(line)


@lru_cache(maxsize=1)
def _renderer(template: str, tokens: tuple[tuple[str, str], ...]) -> Render:
    return renderer(template, dict(tokens))


@dataclass(frozen=True)
class _Read:
    config: Mapping[str, Any]
    template: str

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        options = TextOptions.from_json(self.config["options"])
        sieve = Sieve(self.config["rules"], tuple(self.config["languages"]))
        render = renderer_of(self.config, self.template)
        for part in unit.args["parts"]:
            one = TextUnit.from_json(part)
            yield from read_documents(one, options, sieve, self.config["validation"], render)


def renderer_of(config: Mapping[str, Any], template: str) -> Render | None:
    """What renders the conversations of a stage's configuration; None without a template."""
    if not template:
        return None
    return _renderer(template, tuple(sorted(config["chat"]["tokens"].items())))


def planned(config: Mapping[str, Any], pins: Sequence[Mapping[str, Any]]) -> list[TextUnit]:
    """What to read of pinned files. Raises InputError for a file that is not as it was pinned."""
    pinned = pin_texts(find_texts([str(pin["path"]) for pin in pins]))
    for now, then in zip([pin.to_json() for pin in pinned.pins], pins, strict=True):
        if now != dict(then):
            raise InputError(
                f"{then['path']} is not what it was when its documents were pinned: restore it, or "
                "run again on what is there"
            )
    return plan_texts(pinned, unrun(config["sources"]), TextOptions.from_json(config["options"]))


def documents(context: JobContext, sink: Sink) -> RunUnits:
    """Plans what to read, says so, and reads it. Raises InputError for what cannot be read."""
    config = context.config
    options = TextOptions.from_json(config["options"])
    parts = planned(config, context.stage.pinned)
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
    template = str(context.stage.runtime.get("chat_template", ""))
    return RunUnits(_Listed(context.storage, key), _Read(dict(config), template), sink)
