"""Our loop against a bare PyTorch loop: the same model, batches and optimizer, as a ratio of times.

The model is the tiny CLIP of `trainer` (64 px); the batches lie in memory. The bare loop is what one
would write by hand: forward, symmetric contrastive loss, backward, fused AdamW with a schedule.
Ours is a whole `train`: DeepSpeed at stage 0, feed, agreement on the loss, norm of the gradient, a
line of metrics every step. They take turns of some steps each in this process: the source of our
run makes the bare loop's turn before it gives the first batch of ours.

``ratio``: time of our turn over that of the bare loop's before it, over all turns but the first.
``cpu_ratio``: the same of processor time, which other load disturbs less.
``host_ms``: our time a step outside forward, backward and optimizer step, the median. Goals: at most
1.05, and 5 ms. Run it as a script:
``python tests/benchmarks/bench_loop.py [--batch 32] [--steps 10] [--runs 7] [--zero 0]``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from pydantic import BaseModel
from torch.nn.functional import cross_entropy, normalize

from trainer import config as configuration
from trainer import tokenizer
from trainer.config import RunConfig
from trainer.engine.deepspeed import optimizer_of
from trainer.engine.run import train
from trainer.engine.schedule import learning_rate
from trainer.protocols import Batch, Parts, Place, Positions

IN_MEMORY = 4
"""Different batches that lie in memory."""


Clocks = tuple[float, float]
"""Seconds, and seconds of the processor."""


def clocks() -> Clocks:
    return time.perf_counter(), time.process_time()


def since(begun: Clocks, now: Clocks) -> Clocks:
    return now[0] - begun[0], now[1] - begun[1]


class NoSettings(BaseModel):
    """The source in memory has none."""


class Memory:
    """Batches in memory. `turn` is called with a step number before the step's batch is given."""

    digest = "in memory"

    def __init__(self, size: int, turn: Callable[[int], None]) -> None:
        random = torch.Generator().manual_seed(3)
        self.size, self._turn = size, turn
        self.batches = [
            {
                "pixel_values": torch.randn(size, 3, 64, 64, generator=random),
                "input_ids": torch.randint(4, 500, (size, 24), generator=random),
            }
            for _ in range(IN_MEMORY)
        ]

    def samples(self, epochs: float) -> int:
        return int(epochs * IN_MEMORY * self.size)

    def places(self, positions: Positions) -> list[dict[str, Any]]:
        return [{"epoch": 0, "ids": {}} for _ in positions]

    def batch(self, positions: Positions) -> Batch:
        step = int(positions[0]) // self.size
        self._turn(step)
        return self.batches[step % IN_MEMORY]


class Bare:
    """The loop that one would write by hand."""

    def __init__(self, model: Any, config: RunConfig) -> None:
        self.model, self.config = model, config
        self.optimizer = optimizer_of(config.optimizer, model)
        self.losses: list[float] = []

    def turn(self, first: int, steps: int, batches: list[Batch]) -> None:
        for step in range(first, first + steps):
            batch = batches[step % IN_MEMORY]
            lr = learning_rate(self.config.schedule, self.config.optimizer.lr, step, 10**6)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            found = self.model(**batch)
            image, text = normalize(found["image"], dim=-1), normalize(found["text"], dim=-1)
            logits = found["logit_scale"].exp() * image @ text.T
            labels = torch.arange(len(image))
            loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(loss.item())


class Turns:
    """Makes the bare loop's turn before each of ours, and measures ours from the end of that."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.bare: Bare | None = None
        self.batches: list[Batch] = []
        self.theirs: list[Clocks] = []
        self.ours: list[Clocks] = []
        self._begun = (0.0, 0.0)

    def __call__(self, step: int) -> None:
        if step % self.steps:
            return
        assert self.bare is not None
        now = clocks()
        if step:
            self.ours.append(since(self._begun, now))
        self.bare.turn(step, self.steps, self.batches)
        self._begun = clocks()
        self.theirs.append(since(now, self._begun))


def made(folder: Path, size: int, steps: int, runs: int, zero: int) -> tuple[RunConfig, Turns]:
    """The run's settings, with the source in memory known by name, and its turns."""
    turns = Turns(steps)
    source = Memory(size, turns)
    turns.batches = source.batches
    module = types.ModuleType("memory_source")
    module.Settings = NoSettings  # type: ignore[attr-defined]
    module.build = lambda *_: source  # type: ignore[attr-defined]
    sys.modules["memory_source"] = module
    cast("dict[str, Any]", configuration.PARTS["data"])["memory"] = "memory_source"
    words = tokenizer.train([f"a picture of {i} things" for i in range(2000)], 512)
    words.save(str(folder / "words.json"))
    config = RunConfig.model_validate(
        {
            "recipe": "benchmark",
            "output": str(folder / "run"),
            "model": {"name": "metaclip2", "size": "tiny"},
            "data": {"name": "memory"},
            "objective": {"name": "contrastive"},
            "tokenizer": str(folder / "words.json"),
            "batch": {"size": size},
            "schedule": {"name": "constant"},
            # One step more than the turns: its batch ends the last of them.
            "length": {"steps": (runs + 1) * steps + 1},
            "log_every": 1,
            "zero": zero,
        }
    )
    model_module, settings = configuration.part("model", config.model)
    parts = Parts(tokenizer=tokenizer.load(str(folder / "words.json")))
    turns.bare = Bare(model_module.build(settings, config, parts), config)
    return config, turns


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--zero", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config, turns = made(Path(folder), args.batch, args.steps, args.runs, args.zero)
        assert train(config, Place()) == 0
        text = (Path(config.output) / "metrics.jsonl").read_text()
    lines = [line for line in map(json.loads, text.splitlines()) if "loss" in line]
    assert turns.bare is not None
    losses = zip((line["loss"] for line in lines), turns.bare.losses, strict=False)
    apart = max(abs(mine - theirs) / theirs for mine, theirs in list(losses)[: args.steps])
    if apart > 1e-4:
        raise SystemExit(f"the two loops do not train the same: losses differ by {apart:.1e}")
    # The first step of a turn holds the bare loop's turn.
    host = [line["host_ms"] for line in lines if (line["step"] - 1) % args.steps]
    pairs = list(zip(turns.ours[1:], turns.theirs[1:], strict=False))
    result = {
        "case": "loop",
        "zero": args.zero,
        "ratio": spread([ours[0] / theirs[0] for ours, theirs in pairs]),
        "cpu_ratio": spread([ours[1] / theirs[1] for ours, theirs in pairs]),
        "host_ms": round(statistics.median(host), 3),
        "step_ms": round(1e3 * statistics.median(o[0] for o, _ in pairs) / args.steps, 1),
        "runs": len(pairs),
        "losses_apart": float(f"{apart:.2g}"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
