"""The learning rate of a step: a pure function, so a restart needs no state of a scheduler."""

from __future__ import annotations

import math

from trainer.config import Schedule


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`.

    Linear warm-up reaches ``peak`` at the last of ``schedule.warmup`` steps; the curve then leads
    from ``peak`` to ``schedule.final * peak``, which the step after the last would have. The curve of
    ``wsd`` begins ``schedule.decay`` steps before the end.
    """
    if step < schedule.warmup:
        return peak * (step + 1) / schedule.warmup
    if schedule.name == "constant":
        return peak
    begin = (
        schedule.warmup if schedule.decay is None else max(schedule.warmup, steps - schedule.decay)
    )
    done = max(0, step - begin) / max(1, steps - begin)
    if schedule.name == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * done))
    else:
        left = 1 - (math.sqrt(done) if schedule.curve == "sqrt" else done)
    return peak * (schedule.final + (1 - schedule.final) * left)
