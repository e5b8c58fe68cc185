"""Job: files of text to documents, unit by unit. No row crosses a shuffle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from curation.text.chat import renderer
from curation.text.documents import Sieve, read_documents
from curation.text.options import TextOptions
from curation.text.plan import TextUnit, plan_texts
from curation.text.reading import Render
from curation.text.sources import find_texts, pin_texts, unrun
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.listed import check_same, listed
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.step import Outcome


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
    pinned = pin_texts(find_texts([str(pin["path"]) for pin in pins], empty=True))
    check_same(pinned, pins)
    return plan_texts(pinned, unrun(config["sources"]), TextOptions.from_json(config["options"]))


def documents(context: JobContext, sink: Sink) -> RunUnits:
    """Plans what to read, says so, and reads it. Raises InputError for what cannot be read."""
    config = context.config
    options = TextOptions.from_json(config["options"])
    units = listed(context, planned(config, context.stage.pinned), options.unit_bytes)
    template = str(context.stage.runtime.get("chat_template", ""))
    return RunUnits(units, _Read(dict(config), template), sink)
