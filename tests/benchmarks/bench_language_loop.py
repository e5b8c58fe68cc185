"""Our loop against a bare DeepSpeed loop of the same 30M-parameter Llama and configuration.

Both train the same model class on the same batches in memory under the same DeepSpeed settings; the bare
loop is what one would write by hand: `deepspeed.initialize`, then forward, `backward` and `step` for each
micro-batch. Ours is a whole `train`: feed, counts over the global batch, agreement on the loss, norm of the
gradient, metrics. They take turns of some steps each in this process, as in `bench_loop`.

``ratio``: time of our turn over that of the bare loop's before it; ``cpu_ratio``: of processor time.
``host_ms``: our time a micro-step outside forward, backward and optimizer step, the median.
``syncs_per_micro_step``: `_local_scalar_dense` (a wait for a number of the device) in a step of 5 micro-steps
beyond those in a step of 1, over the 4; ``syncs_per_step``: the rest. Neither step logs.
Goals: at most 1.05, 5 ms, and 0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks.bench_loop import IN_MEMORY, NoSettings, Turns, spread
from trainer import config as configuration
from trainer.config import RunConfig
from trainer.engine import deepspeed as engine_of
from trainer.engine.run import train
from trainer.engine.schedule import learning_rate
from trainer.engine.sizes import sizes
from trainer.protocols import Batch, Parts, Place, Positions

SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 7,
    "num_attention_heads": 8,
    "vocab_size": 16_384,
}


class Memory:
    """Sequences in memory. `turn` is called with a step number before the step's first batch is given."""

    digest = "in memory"

    def __init__(self, size: int, length: int, turn: Callable[[int], None]) -> None:
        random = torch.Generator().manual_seed(3)
        self.size, self.sequence, self._turn = size, length, turn
        shape = (IN_MEMORY, size, length)
        ids = torch.randint(0, SHAPE["vocab_size"], shape, generator=random)
        places = torch.arange(length).expand(size, length).contiguous()
        self.batches = [
            {"input_ids": one, "labels": one.roll(-1, 1).contiguous(), "position_ids": places}
            for one in ids
        ]

    def samples(self, epochs: float) -> int:
        return int(epochs * IN_MEMORY * self.size)

    def places(self, positions: Positions) -> list[dict[str, Any]]:
        return [{"epoch": 0, "ids": {}} for _ in positions]

    def batch(self, positions: Positions) -> Batch:
        step, first = divmod(int(positions[0]), self.size)
        if not first:
            self._turn(step)
        whole = self.batches[step % IN_MEMORY]
        return {name: value[first : first + len(positions)] for name, value in whole.items()}


class Bare:
    """The loop that one would write by hand; its engine starts with its first turn, in the group of ours."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.losses = config, list[float]()
        self._engine: Any = None

    def turn(self, first: int, steps: int, batches: list[Batch]) -> None:
        if self._engine is None:
            self._engine = self._start()
        for step in range(first, first + steps):
            lr = learning_rate(self.config.schedule, self.config.optimizer.lr, step, 10**6)
            for group in self._engine.optimizer.param_groups:
                group["lr"] = lr
            whole, found = batches[step % IN_MEMORY], []
            for start in range(0, len(whole["input_ids"]), self.config.batch.micro or 1):
                part = slice(start, start + (self.config.batch.micro or 1))
                out = self._engine(
                    input_ids=whole["input_ids"][part],
                    position_ids=whole["position_ids"][part],
                    targets=whole["labels"][part],
                )
                loss = out["loss"].mean()
                self._engine.backward(loss)
                self._engine.step()
                found.append(loss.detach())
            self.losses.append(float(torch.stack(found).mean()))

    def _start(self) -> Any:
        import deepspeed

        torch.manual_seed(self.config.seed)
        module, settings = configuration.part("model", self.config.model)
        model = module.build(settings, self.config, Parts())
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=engine_of.optimizer_of(self.config.optimizer, model),
            config=engine_of.resolved(self.config, sizes(self.config, 1)),
            dist_init_required=False,
        )
        return engine


class Syncs(TorchDispatchMode):
    """Counts waits for numbers of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def settings(folder: Path, source: Memory, **more: Any) -> RunConfig:
    """The run's settings, with a source in memory known by name."""
    module = types.ModuleType("sequences_in_memory")
    module.Settings = NoSettings  # type: ignore[attr-defined]
    module.build = lambda *_: source  # type: ignore[attr-defined]
    sys.modules["sequences_in_memory"] = module
    cast("dict[str, Any]", configuration.PARTS["data"])["memory"] = "sequences_in_memory"
    tree = {
        "recipe": "benchmark",
        "output": str(folder),
        "model": {"name": "decoder", "size": "tiny", "shape": SHAPE, "context": source.sequence},
        "data": {"name": "memory"},
        "objective": {"name": "language"},
        "schedule": {"name": "constant"},
        "clip": 1.0,
    }
    return RunConfig.model_validate({**tree, **more})


def waits(folder: Path, micro_batches: int, zero: int) -> int:
    """`_local_scalar_dense` in a step that does not log, of so many micro-batches of 1 sequence."""
    mode, found = Syncs(), list[int]()

    def turn(step: int) -> None:
        if step == 1:
            mode.__enter__()
        elif step == 2:
            mode.__exit__(None, None, None)
            found.append(mode.count)

    source = Memory(micro_batches, 16, turn)
    batch = {"size": micro_batches, "micro": 1}
    config = settings(folder, source, batch=batch, length={"steps": 3}, log_every=100, zero=zero)
    assert train(config, Place()) == 0
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2, help="sequences of a step")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--zero", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        few, many = (waits(Path(folder) / f"{n}", n, args.zero) for n in (1, 5))
        turns = Turns(args.steps)
        source = Memory(args.batch, args.length, turns)
        config = settings(
            Path(folder) / "run",
            source,
            batch={"size": args.batch, "micro": 1},
            # One step more than the turns: its batch ends the last of them.
            length={"steps": (args.runs + 1) * args.steps + 1},
            log_every=1,
            zero=args.zero,
        )
        turns.batches, bare = source.batches, Bare(config)
        turns.bare = bare  # type: ignore[assignment]
        assert train(config, Place()) == 0
        lines = (Path(config.output) / "metrics.jsonl").read_text().splitlines()
        record = json.loads((Path(config.output) / "run.json").read_text())
    steps = [line for line in map(json.loads, lines) if "loss" in line]
    losses = list(zip((line["loss"] for line in steps), bare.losses, strict=False))
    apart = max(abs(mine - theirs) / theirs for mine, theirs in losses[: args.steps])
    if apart > 1e-4:
        raise SystemExit(f"the two loops do not train the same: losses differ by {apart:.1e}")
    # The first step of a turn holds the bare loop's turn.
    host = [line["host_ms"] for line in steps if (line["step"] - 1) % args.steps]
    pairs = list(zip(turns.ours[1:], turns.theirs[1:], strict=False))
    result = {
        "case": "language_loop",
        "parameters": record["parameters"],
        "zero": args.zero,
        "ratio": spread([ours[0] / theirs[0] for ours, theirs in pairs]),
        "cpu_ratio": spread([ours[1] / theirs[1] for ours, theirs in pairs]),
        "host_ms": round(statistics.median(host) / args.batch, 3),
        "syncs_per_micro_step": (many - few) / 4,
        "syncs_per_step": few - (many - few) / 4,
        "step_ms": round(1e3 * statistics.median(o[0] for o, _ in pairs) / args.steps, 1),
        "runs": len(pairs),
        "losses_apart": float(f"{apart:.2g}"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
