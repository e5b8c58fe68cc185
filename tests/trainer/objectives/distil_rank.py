"""``python -m tests.trainer.objectives.distil_rank FILE TEACHER``: steps of distillation as the rank that
the environment names; rank 0 writes {(stage, precision): losses} to FILE."""

from __future__ import annotations

import os
import sys

import torch

from tests.trainer.engine.ranks import records
from tests.trainer.objectives import words
from trainer.engine import deepspeed
from trainer.protocols import Place

if __name__ == "__main__":
    file, teacher = sys.argv[1:]
    words.register()
    place = Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    deepspeed.join(place)
    losses = {}
    for stage, precision in ((0, "fp32"), (3, "fp32"), (3, "bf16")):
        config = words.run_config(
            "unused",
            zero=stage,
            precision=precision,
            objective={"name": "distillation", "teacher": teacher, "temperature": 2.0, "rows": 11},
            length={"steps": 3},
        )
        losses[stage, precision] = records(config, place)["losses"]
    if place.rank == 0:
        torch.save(losses, file)
    deepspeed.leave()
    sys.stderr.flush()
    os._exit(0)  # groups of several engines do not always end in order
