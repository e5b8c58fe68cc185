"""A rank that makes the steps of several runs and writes down losses, gradients and weights.

``python -m trainer.parity.rank JOBS`` with the variables that torchrun sets: JOBS is a JSON file of
[{"config", "gradients", "file"}]; rank 0 writes each result to its file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from trainer.config import RunConfig
from trainer.engine import deepspeed
from trainer.engine.feed import feed
from trainer.engine.parts import build
from trainer.engine.schedule import learning_rate
from trainer.engine.sizes import sizes
from trainer.engine.step import Stepper
from trainer.protocols import Place


class Recorder(Stepper):
    """Writes down every parameter's gradient before the weights change."""

    gradients: dict[str, Any]

    def _update(self, loss: float) -> Any:
        import torch
        from deepspeed.utils import safe_get_full_grad

        self.gradients = {}
        for name, parameter in self.engine.module.named_parameters():
            found = parameter.grad
            if self.engine.zero_optimization_stage():
                found = safe_get_full_grad(parameter)
            if found is None:  # the loss does not reach it
                found = torch.zeros_like(parameter)
            self.gradients[name] = found.detach().float().clone().reshape(-1)
        return super()._update(loss)


def records(config: RunConfig, place: Place, *, gradients: bool = True) -> dict[str, Any]:
    """Return {losses, norms} of each step, and with ``gradients`` {gradients, weights}: those of each
    step, and the weights after the last, as flat fp32 tensors by parameter."""
    from deepspeed.utils import safe_get_full_fp32_param

    parts = build(config, place)
    assert parts.source is not None and parts.objective is not None
    of = sizes(config, place.ranks, parts.source)
    engine = deepspeed.start(parts.model, config, of, place)
    ours = deepspeed.clips_itself(config)
    kind = Recorder if gradients else Stepper
    stepper = kind(
        engine, parts.objective, place, config.seed, norm=ours, clip=config.clip if ours else None
    )
    found: dict[str, Any] = {"losses": [], "norms": [], "gradients": [], "weights": {}}
    for part in feed(parts.source, of, place.rank, config.loaders, 0):
        lr = learning_rate(config.schedule, config.optimizer.lr, part.step, of.steps)
        outcome = stepper.step(part, lr)
        found["losses"].append(outcome.loss)
        found["norms"].append(float(outcome.grad_norm))
        if isinstance(stepper, Recorder):
            found["gradients"].append(stepper.gradients)
    if gradients:
        for name, parameter in engine.module.named_parameters():
            whole = parameter if not config.zero else safe_get_full_fp32_param(parameter)
            found["weights"][name] = whole.detach().float().clone().reshape(-1)
    engine.destroy()
    return found


def main(jobs: str) -> None:
    """Do the jobs in turn, in one group of processes."""
    import torch

    rank, ranks, local = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    place = Place(rank, ranks, local)
    deepspeed.join(place)
    for job in json.loads(Path(jobs).read_text(encoding="utf-8")):
        config = RunConfig.model_validate(job["config"])
        result = records(config, place, gradients=job["gradients"])
        if place.rank == 0:
            torch.save(result, job["file"])
    deepspeed.leave()


if __name__ == "__main__":
    main(sys.argv[1])
