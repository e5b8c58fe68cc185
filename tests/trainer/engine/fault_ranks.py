"""A rank that makes steps with faults between them, and the same steps without.

``python -m tests.trainer.engine.fault_ranks FILE`` with the variables that torchrun sets. Rank 0 writes
{case: record} to FILE: what is held after each good step of a run with faults (``faulty``) and of one
that never meets them (``plain``), by rank; what was raised, and whether anything changed by it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.trainer.checkpoints.training import optimizer_shas, sha
from tests.trainer.engine import tiny
from trainer.config import RunConfig
from trainer.engine import deepspeed
from trainer.engine.faults import Faults
from trainer.engine.faults_step import GuardedStepper
from trainer.engine.feed import feed
from trainer.engine.parts import build
from trainer.engine.sizes import sizes
from trainer.engine.step import NotFinite, Stepper
from trainer.engine.together import everyone
from trainer.protocols import Place

BATCH = 16
BEFORE = 5
"""Good steps before the first fault: spikes are known by then."""

FAULTS = {6: "loss", 8: "loss", 10: "gradient", 12: "gradient", 14: "large", 16: "steep"}
"""The fault of a step. The first of a kind is in rank 0's first micro-batch, the second in rank 1's
last."""

STEPS = 18


def settings(zero: int, precision: str, clip: float | None) -> dict[str, Any]:
    """Settings of a run with the faults."""
    faults: dict[str, list[int]] = {}
    for step, kind in FAULTS.items():
        last = kind in faults
        faults.setdefault(kind, []).append(step * BATCH + (BATCH - 1 if last else 0))
    whole = zero == 0 and precision == "bf16"  # accumulation is refused there
    return {
        "zero": zero,
        "precision": precision,
        "clip": clip,
        "batch": {"size": BATCH, "micro": 8 if whole else 4},
        "length": {"steps": STEPS},
        "objective": {"name": "tiny_faulty", **faults},
        "faults": {"policy": "skip", "spike": {"loss": 50.0, "gradient": 50.0, "window": 8}},
    }


def cases() -> dict[str, dict[str, Any]]:
    """{case: settings}, every stage and precision."""
    found = {}
    for zero, precision in itertools.product((0, 1, 2, 3), ("fp32", "bf16")):
        found[f"{zero} {precision}"] = settings(zero, precision, 0.5 if zero % 2 else None)
    return found


def held(engine: Any, objective: Any, batch: Any) -> dict[str, Any]:
    """SHA-256 of masters and moments, and of the weights while a forward uses them."""
    import torch

    found = optimizer_shas(engine)
    names = {id(p): n for n, p in engine.module.named_parameters()}

    def look(module: Any, _: Any) -> None:
        for value in module.parameters(recurse=False):
            found["tensors"][names[id(value)]]["forward"] = sha(value)

    hooks = [m.register_forward_pre_hook(look) for m in engine.module.modules()]
    with torch.no_grad():
        objective.components(engine, batch)
    for hook in hooks:
        hook.remove()
    return found


def made(config: RunConfig, place: Place, *, faulty: bool) -> dict[str, Any]:
    """Make the steps, with the faults or without."""
    parts = build(config, place)
    assert parts.source is not None and parts.objective is not None
    of = sizes(config, place.ranks, parts.source)
    engine = deepspeed.start(parts.model, config, of, place)
    ours = deepspeed.clips_itself(config)
    common: dict[str, Any] = {"norm": ours, "clip": config.clip if ours else None}
    rest = (engine, parts.objective, place, config.seed)
    stepper = Stepper(*rest, **common)
    if faulty:
        stepper = GuardedStepper(*rest, **common, faults=Faults(config.faults, Path("unused")))
    found: dict[str, Any] = {"held": {}, "losses": {}, "raised": {}, "changed": []}
    last: dict[str, Any] = {}
    for part in feed(parts.source, of, place.rank, 0, 0):
        if part.step in FAULTS:
            if not faulty:
                continue
            try:
                stepper.step(part, 1e-2)
            except NotFinite as error:
                assert isinstance(stepper, GuardedStepper)
                stepper.discard()
                found["raised"][part.step] = str(error)
            if optimizer_shas(engine) != last:
                found["changed"].append(part.step)
            continue
        found["losses"][part.step] = stepper.step(part, 1e-2).loss
        last = optimizer_shas(engine)
        if part.step > BEFORE:
            found["held"][part.step] = held(engine, parts.objective, part.batches[0])
    engine.destroy()
    return found


def main(file: str) -> None:
    from torch.nn import functional

    tiny.register()
    place = Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    deepspeed.join(place)
    linear = functional.linear
    found = {}
    for case, changes in cases().items():
        config = tiny.run_config("unused", **changes)
        one = {}
        for name in ("plain", "faulty"):
            one[name] = everyone(place, made(config, place, faulty=name == "faulty"))
            functional.linear = linear  # stage 3 leaves its own
        found[case] = one
    if place.rank == 0:
        Path(file).write_text(json.dumps(found))
    sys.stderr.flush()
    deepspeed.leave()


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stderr.flush()
    os._exit(0)  # groups of several engines do not always end in order
