"""`python -m tests.trainer.launching.plan_table`: planned memory beside that of real steps, as JSON.

One line for each model, ZeRO stage, precision and activation checkpointing, and a last one with the
largest error. ``planned`` and ``tracked`` are bytes of activations and temporaries at the worst moment of
forward and backward: above what is alive before the step, without DeepSpeed's buffer of gradients, which
is subtracted on both sides. ``total_*``: all that is alive then, model states (without moments) and that
buffer included.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from tests.trainer.launching.live import tracked
from trainer.config import RunConfig, load
from trainer.engine.deepspeed import resolved
from trainer.engine.sizes import Sizes
from trainer.launching import memory
from trainer.launching.stages import Settings, Working, working
from trainer.launching.timeline import timeline
from trainer.models import decoder_model
from trainer.objectives import language
from trainer.protocols import Parts

RANKS = 8

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2-124m": (
        "gpt2",
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        | {"vocab_size": 50257, "max_position_embeddings": 1024}
        | dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0),
    ),
    "llama-110m": (
        "llama",
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        | {"intermediate_size": 2048, "vocab_size": 32000, "tie_word_embeddings": True},
    ),
    "smollm2-135m": (
        "llama",
        {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9}
        | {"num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152}
        | {"tie_word_embeddings": True, "max_position_embeddings": 8192},
    ),
}
"""Shapes of GPT-2 small, of a Llama with its width and depth, and of SmolLM2-135M."""


@dataclass(frozen=True)
class Case:
    """A model trained in some way on ``rows`` sequences of ``tokens``."""

    model: str
    stage: int
    checkpointing: bool
    precision: str = "bf16"
    rows: int = 2
    tokens: int = 512


def cases() -> Iterator[Case]:
    """All of them."""
    for model in MODELS:
        for stage in (1, 3):
            for checkpointing in (False, True):
                yield Case(model, stage, checkpointing)
    for stage in (1, 3):
        yield Case("llama-110m", stage, False, "fp32", 1)


class Words:
    """A source of sequences of one document."""

    digest = "none"

    def __init__(self, tokens: int) -> None:
        self.sequence = tokens

    def batch(self, positions: Any) -> dict[str, torch.Tensor]:
        shape = len(positions), self.sequence
        ids = torch.randint(0, 30_000, shape, generator=torch.Generator().manual_seed(0))
        return {
            "input_ids": ids,
            "labels": ids,
            "position_ids": torch.arange(self.sequence).repeat(len(positions), 1),
        }


def model_of(case: Case, device: str) -> Any:
    """The model of a case, new."""
    family, shape = MODELS[case.model]
    with torch.device(device):
        model = decoder_model.new(family, shape, 0).train()
    if case.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def config_of(case: Case) -> RunConfig:
    """The settings of a case."""
    words = ["data.path=none", "output=none", f"zero={case.stage}", f"precision={case.precision}"]
    return load("llama-tiny", [*words, "length.steps=9"]).model_copy(update={"clip": None})


def planned(case: Case) -> Working:
    """What the planner says of a case."""
    config, source, model = config_of(case), Words(case.tokens), model_of(case, "meta")
    of = Sizes(case.rows * RANKS, RANKS, case.rows, case.rows, 1, 9)
    objective = language.Language(language.Settings(), model.config.vocab_size, True)
    parts = Parts(model=model, source=source, objective=objective)  # type: ignore[arg-type]
    settings, bf16 = Settings.of(resolved(config, of)), case.precision == "bf16"
    return working(timeline(config, parts, case.rows), case.stage, RANKS, settings, bf16=bf16)


def measured(case: Case) -> dict[str, Any]:
    """Planned and tracked bytes of a case."""
    begun = time.monotonic()
    plan = planned(case)
    counted = memory.count(model_of(case, "meta"))
    kept = memory.kept(counted, case.stage, RANKS, bf16=case.precision == "bf16", moments=0)
    planned_in = time.monotonic() - begun
    batch = Words(case.tokens).batch(range(case.rows))
    warm = 3 if case.stage == 3 else 1
    live = tracked(model_of(case, "cpu"), config_of(case), RANKS, batch, warm)
    # At stage 3 the buffer is there before the step; at stage 1 in fp32 the backward pass makes it.
    found = live.peak - live.before - (0 if case.stage == 3 else plan.buffers)
    total = kept + plan.peak + plan.buffers
    return {
        **vars(case),
        "parameters": counted.total,
        "ranks": RANKS,
        "planned": plan.peak,
        "tracked": found,
        "ratio": round(plan.peak / found, 4),
        "total_planned": total,
        "total_tracked": live.peak,
        "total_ratio": round(total / live.peak, 4),
        "plan_s": round(planned_in, 2),
        "seconds": round(time.monotonic() - begun, 1),
    }


def table(chosen: Iterable[Case]) -> Iterator[dict[str, Any]]:
    """Yield the row of each case, made in a process of its own: what DeepSpeed leaves behind would count
    in the next."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        yield from pool.map(measured, chosen)


def main() -> None:
    """Print the table; with words, only cases whose model has one of them in its name."""
    words = sys.argv[1:]
    rows = []
    for row in table(c for c in cases() if not words or any(word in c.model for word in words)):
        rows.append(row)
        print(json.dumps(row), flush=True)
    largest = {
        name: round(max(abs(row[key] - 1) for row in rows), 4)
        for name, key in (("largest_error", "ratio"), ("largest_total_error", "total_ratio"))
    }
    print(json.dumps({"cases": len(rows), **largest}))


if __name__ == "__main__":
    main()
