"""What a run directory says: run.json, metrics.jsonl, eval/*.json. Nothing is trusted to be complete."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import InputError
from schemas.storage import Storage, storage
from trainer.config import RunConfig
from trainer.engine.metrics import METRICS
from trainer.evaluation.loading import RUN, read_run

KNOWN = (
    "step",
    "samples",
    "epoch",
    "loss",
    "lr",
    "grad_norm",
    "samples_per_s",
    "host_ms",
    "seconds",
    "tokens_per_s",
    "mfu",
)
"""Values of a line of metrics that are no component of the loss."""


@dataclass(frozen=True)
class History:
    """metrics.jsonl. ``steps``: the lines that count, by ascending step; ``superseded``: how many
    were made again after a restart; ``unreadable``: lines that are no JSON object; ``seconds``: of
    training, over all starts."""

    steps: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()
    superseded: int = 0
    unreadable: int = 0
    seconds: float = 0.0

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values where the value is a finite number."""
        pairs = [(int(line["step"]), number(line.get(name))) for line in self.steps]
        kept = [(step, value) for step, value in pairs if value is not None]
        return [step for step, _ in kept], [value for _, value in kept]

    def components(self) -> list[str]:
        """Names of the loss's components, in the order of the lines."""
        names = (name for line in self.steps for name, v in line.items() if number(v) is not None)
        return [name for name in dict.fromkeys(names) if name not in KNOWN]

    def named(self, *names: str) -> list[Mapping[str, Any]]:
        """Events of these names."""
        return [event for event in self.events if event["event"] in names]


@dataclass(frozen=True)
class Run:
    """A run directory as read. ``broken``: files that cannot be read, with the reason."""

    place: Storage
    facts: Mapping[str, Any]
    config: RunConfig
    history: History
    evaluations: Mapping[str, Mapping[str, Any]]
    broken: tuple[tuple[str, str], ...] = field(default=())

    def part(self, name: str) -> Mapping[str, Any]:
        """A dict of run.json, empty if it has none."""
        found = self.facts.get(name)
        return found if isinstance(found, Mapping) else {}


def number(value: Any) -> float | None:
    """Return a finite number as float, anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def read(location: str) -> Run:
    """Read a run directory. InputError if it is none; what is missing in it is left empty."""
    try:
        facts = read_run(location)
        config = RunConfig.model_validate(facts["config"])
    except NotADirectoryError:
        raise InputError(f"{location} is a file; give the output directory of a run") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{storage(location).path(RUN)}: its settings are not those of a run of this version "
            f"({' '.join(str(error).split())[:200]}); restore the file, or use the version that wrote it"
        ) from None
    place = storage(location)
    evaluations: dict[str, Mapping[str, Any]] = {}
    broken: list[tuple[str, str]] = []
    for key in sorted(place.list("eval/")):
        name = key.removeprefix("eval/")
        if "/" in name or not name.endswith(".json"):
            continue
        try:
            evaluations[name.removesuffix(".json")] = _result(place.read_bytes(key))
        except ValueError as error:
            broken.append((key, str(error)[:200]))
    return Run(place, facts, config, _history(place), evaluations, tuple(broken))


def _result(data: bytes) -> Mapping[str, Any]:
    found = json.loads(data)
    rows = (found.get("rows") or found.get("languages")) if isinstance(found, dict) else None
    if not (
        isinstance(rows, dict)
        and isinstance(found.get("headline"), dict)
        and all(isinstance(one, dict) for one in rows.values())
    ):
        raise ValueError("it is no result of `trainer eval`: it has no headline and languages")
    return found


def _history(place: Storage) -> History:
    try:
        text = place.read_bytes(METRICS).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return History()
    *lines, _ = text.split("\n")  # after the last newline: nothing, or a line being written
    steps: dict[int, Mapping[str, Any]] = {}
    events: list[Mapping[str, Any]] = []
    superseded = unreadable = 0
    seconds, current = 0.0, 0.0
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            unreadable += 1
            continue
        step = found.get("step") if isinstance(found, dict) else None
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            unreadable += 1
        elif "event" in found:
            events.append(found)
            if found["event"] in ("started", "continued"):
                seconds, current = seconds + current, 0.0
                gone = [one for one in steps if one > step]
                superseded += len(gone)
                for one in gone:
                    del steps[one]
        else:
            superseded += step in steps
            steps[step] = found
            current = number(found.get("seconds")) or current
    ordered = tuple(steps[step] for step in sorted(steps))
    return History(ordered, tuple(events), superseded, unreadable, seconds + current)
