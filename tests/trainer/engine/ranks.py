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
from trainer.engine import deepspeed
from trainer.parity.rank import records
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
    sys.stderr.flush()
    os._exit(0)  # groups of several engines do not always end in order
