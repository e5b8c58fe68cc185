"""The learning rate of a step: a pure function, so a restart needs no state of a scheduler."""

from __future__ import annotations

import math

from trainer.config import Schedule


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`.

    Linear warm-up reaches ``peak`` at the last of ``schedule.warmup`` steps; the curve then leads
    from ``peak`` to ``schedule.final * peak``, which the step after the last would have.
    """
    if step < schedule.warmup:
        return peak * (step + 1) / schedule.warmup
    if schedule.name == "constant":
        return peak
    done = (step - schedule.warmup) / max(1, steps - schedule.warmup)
    left = 1 - done if schedule.name == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return peak * (schedule.final + (1 - schedule.final) * left)
