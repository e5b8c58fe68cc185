"""``python -m tests.trainer.objectives.language_ranks FILE STAGE...``: steps of small decoders as the
rank that the environment names; rank 0 writes {(stage, case): losses, gradients, weights} to FILE."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from tests.trainer.engine.ranks import records
from tests.trainer.objectives import words
from trainer.engine import deepspeed
from trainer.protocols import Place

UNTIED = words.SHAPE | {"tie_word_embeddings": False}
GPT2 = {key: value for key, value in words.SHAPE.items() if key != "intermediate_size"}
SGD = {"name": "sgd", "lr": 0.05, "weight_decay": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "tied": {
        "batch": {"size": 8, "micro": 2},
        "objective": {"name": "language", "rows": 7, "z_loss": 0.01},
        "optimizer": SGD,
    },
    "untied": {
        "model": {"name": "decoder", "size": "tiny", "shape": UNTIED},
        "objective": {"name": "language", "rows": 7},
        "optimizer": SGD,
    },
    "recomputed": {
        "model": {
            "name": "decoder",
            "size": "gpt2-tiny",
            "shape": GPT2,
            "gradient_checkpointing": True,
        },
        "optimizer": SGD,
    },
}


def main(file: str, stages: list[int]) -> None:
    words.register()
    place = Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    deepspeed.join(place)
    found = {}
    for stage in stages:
        for case, changes in CASES.items():
            found[stage, case] = records(words.run_config("unused", zero=stage, **changes), place)
    if place.rank == 0:
        torch.save(found, file)
    deepspeed.leave()


if __name__ == "__main__":
    main(sys.argv[1], [int(stage) for stage in sys.argv[2:]])
    sys.stderr.flush()
    os._exit(0)  # groups of several engines do not always end in order
