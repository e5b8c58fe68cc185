"""What a run knows of its faults: which steps are left out, and what is normal for a loss.

Both are the same on all ranks, go into every checkpoint (`Faults.state`) and are written to the run
directory at once, so a continued run, on any number of ranks, leaves out the same steps: a step's
samples stay a pure function of its number.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import CheckFailed, InputError
from trainer.config import FaultPolicy
from trainer.engine.step import NotFinite

FOLDER = "faults"
"""Of the run directory: one file for each fault."""

DEVIATION = 1.4826
"""Median absolute deviations in a standard deviation of a normal distribution."""

FLOOR = 0.01
"""Least deviation, as a part of the median: a loss that stands still makes no noise a spike."""


class Spike(NotFinite):
    """A loss, or the norm of a gradient, far above those of the steps before; no weight has changed."""

    def __init__(self, what: str, value: float, limit: float, steps: int) -> None:
        text = f"the {what} {value:g} is a spike: above {limit:g}, by the last {steps} steps"
        Exception.__init__(self, text)
        self.positions = np.empty(0, np.int64)


@dataclass(frozen=True)
class Fault:
    """Steps ``first`` to ``step`` (from 0) are left out; the last of them had the fault."""

    step: int
    first: int
    why: str


class Normal:
    """The last values of one number of a run, and how high the next may be."""

    def __init__(self, what: str, deviations: float | None, window: int) -> None:
        self.what = what
        self._deviations = deviations
        self._least = max(2, window // 2)
        self.values: deque[float] = deque(maxlen=window)

    @property
    def watched(self) -> bool:
        """Whether spikes are looked for."""
        return self._deviations is not None

    def limit(self) -> float:
        """Return the largest value that is no spike; infinity before half the window."""
        if self._deviations is None or len(self.values) < self._least:
            return math.inf
        median = statistics.median(self.values)
        spread = statistics.median(abs(value - median) for value in self.values)
        deviation = max(DEVIATION * spread, FLOOR * abs(median))
        return median + self._deviations * deviation

    def check(self, value: float) -> None:
        """Raise Spike if the value is one."""
        if value > (limit := self.limit()):
            raise Spike(self.what, value, limit, len(self.values))

    def note(self, value: float) -> None:
        """Count the value of a step that changed the weights."""
        if self.watched:
            self.values.append(value)


class Faults:
    """The faults of a run so far, and the statistics by which spikes are known."""

    def __init__(self, settings: FaultPolicy, output: Path) -> None:
        spike = settings.spike
        self.settings = settings
        self.loss = Normal("loss", spike.loss, spike.window)
        self.gradient = Normal("gradient's norm", spike.gradient, spike.window)
        self._found: dict[int, Fault] = {}
        self._output = output

    @property
    def found(self) -> list[Fault]:
        """The faults that were borne, in the order of their steps."""
        return [self._found[step] for step in sorted(self._found)]

    def left_out(self, step: int) -> bool:
        """Return whether the run makes no step of this number (from 0)."""
        return any(fault.first <= step <= fault.step for fault in self._found.values())

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds: JSON values."""
        return {
            "left_out": [asdict(fault) for fault in self.found],
            "loss": list(self.loss.values),
            "gradient": list(self.gradient.values),
        }

    def restore(self, state: Mapping[str, Any], step: int, later: list[Fault]) -> None:
        """Take a checkpoint's state, of ``step`` steps, and the faults found after it (`recorded`)."""
        self._found = {one["step"]: Fault(**one) for one in state.get("left_out", ())}
        self._found |= {fault.step: fault for fault in later if fault.step >= step}
        for normal, key in ((self.loss, "loss"), (self.gradient, "gradient")):
            normal.values.clear()
            normal.values.extend(state.get(key, ()))

    def recorded(self) -> list[Fault]:
        """Return the faults in the run directory that were borne. InputError for a damaged file."""
        found = []
        for path in sorted((self._output / FOLDER).glob("step-*.json")):
            try:
                left_out = json.loads(path.read_text(encoding="utf-8"))["left_out"]
                found += [Fault(**left_out)] if left_out else []
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path} is no record of a fault ({type(error).__name__}): restore it, or delete "
                    "it to have its steps made"
                ) from None
        return found

    def add(self, step: int, first: int, why: str) -> Fault:
        """Bear a fault: leave out steps ``first`` to ``step``. CheckFailed if that is over the budget."""
        settings = self.settings
        recent = [s for s in self._found if step - settings.within < s < step]
        if len(recent) >= settings.budget:
            raise CheckFailed(
                f"step {step + 1}: {why}. It is fault number {len(recent) + 1} within "
                f"{settings.within} steps, and faults.budget={settings.budget} are borne: look at "
                f"{self._output / FOLDER}; then give a lower optimizer.lr= (with another output=), "
                "better data, or a larger faults.budget="
            )
        fault = Fault(step, first, why)
        self._found[step] = fault
        return fault

    def path(self, step: int) -> Path:
        """Return where the fault of a step (from 0) is written; names count from 1, as metrics do."""
        return self._output / FOLDER / f"step-{step + 1:08}.json"

    def write(self, step: int, facts: Mapping[str, Any], fault: Fault | None) -> None:
        """Write a fault down; ``fault``: as it was borne, None if it stops the run. By rank 0."""
        path = self.path(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {**facts, "left_out": asdict(fault) if fault else None}, indent=2, default=str
        )
        temporary = path.with_suffix(".json.new")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
