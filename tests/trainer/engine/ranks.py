"""A rank that makes steps of the tiny model and writes down losses, gradients and weights.

``python -m tests.trainer.engine.ranks FILE STAGE...`` with the variables that torchrun sets; rank 0
writes {(stage, case): record} to FILE.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from tests.trainer.engine import tiny
from trainer.config import RunConfig
from trainer.engine import deepspeed
from trainer.engine.feed import feed
from trainer.engine.run import build
from trainer.engine.schedule import learning_rate
from trainer.engine.sizes import sizes
from trainer.engine.step import Stepper
from trainer.protocols import Place

CASES: dict[str, dict[str, Any]] = {
    "direct": {},
    "cached": {"model": {"name": "tiny", "dropout": 0.3}, "batch": {"size": 16, "micro": 2}},
    "additive": {"objective": {"name": "tiny_additive"}, "batch": {"size": 16, "micro": 2}},
    "sgd": {
        "batch": {"size": 16, "micro": 4},
        "clip": 0.5,
        "optimizer": {"name": "sgd", "lr": 0.3, "momentum": 0.9, "weight_decay": 0.1},
        "schedule": {"name": "linear", "warmup": 1},
        "length": {"steps": 3},
    },
}


class Recorder(Stepper):
    """Writes down every parameter's gradient before the weights change."""

    gradients: dict[str, torch.Tensor]

    def _update(self, loss: float) -> Any:
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


def records(config: RunConfig, place: Place) -> dict[str, Any]:
    """Losses and gradients of each step, and the weights after the last."""
    from deepspeed.utils import safe_get_full_fp32_param

    parts = build(config, place)
    assert parts.source is not None and parts.objective is not None
    of = sizes(config, place.ranks, parts.source)
    engine = deepspeed.start(parts.model, config, of, place)
    ours = deepspeed.clips_itself(config)
    stepper = Recorder(
        engine, parts.objective, place, config.seed, norm=ours, clip=config.clip if ours else None
    )
    losses, gradients, norms = [], [], []
    for part in feed(parts.source, of, place.rank, config.loaders, 0):
        lr = learning_rate(config.schedule, config.optimizer.lr, part.step, of.steps)
        outcome = stepper.step(part, lr)
        losses.append(outcome.loss)
        norms.append(float(outcome.grad_norm))
        gradients.append(stepper.gradients)
    weights = {}
    for name, parameter in engine.module.named_parameters():
        whole = parameter if not config.zero else safe_get_full_fp32_param(parameter)
        weights[name] = whole.detach().float().clone().reshape(-1)
    engine.destroy()
    return {"losses": losses, "norms": norms, "gradients": gradients, "weights": weights}


def main(file: str, stages: list[int]) -> None:
    tiny.register()
    place = Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    deepspeed.join(place)
    found = {}
    for stage in stages:
        for case, changes in CASES.items():
            config = tiny.run_config("unused", **{"length": {"steps": 1}, "zero": stage, **changes})
            found[stage, case] = records(config, place)
    if place.rank == 0:
        torch.save(found, file)
    deepspeed.leave()


if __name__ == "__main__":
    main(sys.argv[1], [int(stage) for stage in sys.argv[2:]])
