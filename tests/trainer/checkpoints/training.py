"""Engines over a small awkward model, in real processes, and what they hold.

Run as a module by `run`: reads a JSON list of jobs, does them one after another in every rank, and
writes the results of rank 0 as JSON. Masters and moments are read here by DeepSpeed's own
functions, and forward weights by hooks during a forward pass: independently of the code under test.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import ROOT
from tests.trainer.checkpoints.breaking import broken, kill_everywhere

BATCH = 8
CHECKPOINTS = "checkpoints"


def run(tmp: Path, ranks: int, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do the jobs in `ranks` processes; the results of rank 0."""
    plan, out = tmp / f"jobs-{os.urandom(4).hex()}.json", tmp / f"out-{os.urandom(4).hex()}.json"
    plan.write_text(json.dumps(jobs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    log = (tmp / "ranks.log").open("a+")
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.trainer.checkpoints.training", str(plan), str(out)],
            cwd=ROOT,
            env={**os.environ, **common, "RANK": str(r), "LOCAL_RANK": str(r)}
            | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        for r in range(ranks)
    ]
    try:
        codes = [process.wait(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    log.seek(0)
    assert codes == [0] * ranks, f"exit codes {codes}\n{log.read()[-6000:]}"
    found: list[dict[str, Any]] = json.loads(out.read_text())
    return found


def job(zero: int, steps: int, **more: Any) -> dict[str, Any]:
    """Train up to step `steps`; ``restore``/``save``: [folder, name]."""
    return {"zero": zero, "steps": steps, "precision": "fp32", "optimizer": "adamw"} | more


# -- in the processes -------------------------------------------------------------------------


def _model(wide: int) -> Any:
    import torch

    class Awkward(torch.nn.Module):
        """Odd sizes (parts of ranks cut through tensors), tied, frozen and buffered tensors, and
        weights that are -0.0."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(13, wide)
            self.norm = torch.nn.LayerNorm(wide)
            self.up = torch.nn.Linear(wide, 23)
            self.down = torch.nn.Linear(23, wide, bias=False)
            self.frozen = torch.nn.Linear(wide, wide)
            self.frozen.requires_grad_(False)
            self.head = torch.nn.Linear(wide, 13, bias=False)
            self.head.weight = self.embed.weight
            self.scale = torch.nn.Parameter(torch.tensor(1.5))
            self.register_buffer("seen", torch.arange(5) + wide)
            self.register_buffer("scratch", torch.zeros(3), persistent=False)

        def forward(self, x: Any) -> Any:
            y = self.norm(self.embed(x))
            y = y + self.down(torch.nn.functional.gelu(self.up(y))) + self.frozen(y)
            return self.head(y).float() * self.scale.float()

    torch.manual_seed(3)
    model = Awkward()
    with torch.no_grad():
        model.up.bias.copy_(torch.full((23,), -0.0))
    return model


def _engine(one: dict[str, Any], place: Any) -> Any:
    from trainer.config import RunConfig
    from trainer.engine.deepspeed import start
    from trainer.engine.sizes import sizes

    optimizer = {"name": one["optimizer"], "lr": 3e-3}
    if one["optimizer"] == "sgd":
        optimizer |= {"momentum": 0.9, "lr": 0.05}
    empty: dict[str, Any] = {"model": {}, "data": {}, "objective": {}, "output": "-"}
    config = RunConfig(
        recipe="-",
        zero=one["zero"],
        precision=one["precision"],
        optimizer=optimizer,
        batch={"size": BATCH},
        length={"steps": 100},
        deepspeed=one.get("deepspeed", {}),
        **empty,
    )
    return start(_model(one.get("wide", 11)), config, sizes(config, place.ranks), place)


def _batch(step: int, place: Any) -> Any:
    import torch

    rows = torch.randint(0, 13, (BATCH, 5), generator=torch.Generator().manual_seed(step))
    part = BATCH // place.ranks
    return rows[place.rank * part : (place.rank + 1) * part]


def _step(engine: Any, step: int, place: Any) -> float:
    """One step; the mean loss over ranks."""
    import torch
    import torch.distributed as dist

    rows = _batch(step, place)
    logits = engine(rows[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:])
    engine.backward(loss)
    engine.step()
    mean = loss.detach().double()
    dist.all_reduce(mean)
    return float(mean) / place.ranks


def sha(value: Any) -> str:
    """SHA-256 of a tensor's elements."""
    import torch

    flat = value.detach().clone().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def forward_shas(engine: Any, place: Any) -> dict[str, str]:
    """SHA-256 of each weight while a forward pass uses it."""
    import torch

    found: dict[str, str] = {}
    names = {id(p): n for n, p in engine.module.named_parameters()}

    def look(module: Any, _: Any) -> None:
        for value in module.parameters(recurse=False):
            assert value.numel() or value.ds_numel == 0, "a weight is not whole during the forward"
            found[names[id(value)]] = sha(value)

    hooks = [m.register_forward_pre_hook(look) for m in engine.module.modules()]
    with torch.no_grad():
        engine(_batch(0, place)[:, :-1])
    for hook in hooks:
        hook.remove()
    return found


def held(engine: Any, place: Any) -> dict[str, Any]:
    """SHA-256 of what is held of each parameter, and the optimizer's steps."""
    forward, found = forward_shas(engine, place), optimizer_shas(engine)
    tensors = {name: {"forward": forward[name], **found["tensors"][name]} for name in forward}
    return {"tensors": tensors, "steps": found["steps"]}


def optimizer_shas(engine: Any) -> dict[str, Any]:
    """SHA-256 of each master and moment by DeepSpeed's own functions, and the steps counted.

    The functions turn -0.0 into 0.0, so that is done everywhere.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if hasattr(engine.optimizer, "_hp_optimizer_states_linked"):
        # DeepSpeed links moments after the step of the first group, when the second has none.
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    base = getattr(engine.optimizer, "optimizer", engine.optimizer)
    groups = getattr(engine.optimizer, "fp16_groups", None)
    masters: dict[int, Any] = {}
    if engine.zero_optimization_stage() == 0 and groups:
        for low, high in zip(groups, engine.optimizer.fp32_groups, strict=True):
            masters |= {id(a): b for a, b in zip(low, high, strict=True)}
    steps = {float(state["step"]) for state in base.state.values() if "step" in state}
    kinds = sorted({k for state in base.state.values() for k in state} - {"step"})
    found: dict[str, dict[str, str]] = {}
    for name, value in engine.module.named_parameters():
        one = found.setdefault(name, {})
        if value.requires_grad and engine.zero_optimization_stage() == 0:
            master = masters.get(id(value), value)
            one["masters"] = sha(master + 0.0)
            one |= {kind: sha(base.state[master][kind] + 0.0) for kind in kinds}
        elif value.requires_grad:
            one["masters"] = sha(safe_get_full_fp32_param(value) + 0.0)
            one |= {k: sha(safe_get_full_optimizer_state(value, k) + 0.0) for k in kinds}
    return {"tensors": found, "steps": sorted(steps)}


def weights_of(engine: Any) -> dict[str, list[float]]:
    """All weights that the forward uses, as numbers."""
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(list(engine.module.parameters())):
        return {n: p.detach().view(-1).tolist() for n, p in engine.module.named_parameters()}


def _do(one: dict[str, Any], place: Any) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    from schemas.errors import HeadraceError
    from schemas.storage import storage
    from trainer.engine import checkpoint

    linear = torch.nn.functional.linear
    engine = _engine(one, place)
    result: dict[str, Any] = {"losses": [], "zero": one["zero"]}
    first = 0
    for before in range(one.get("before", 0)):
        _step(engine, 1000 + before, place)  # a state that the restore has to overwrite
    try:
        if restore := one.get("restore"):
            folder = storage(restore[0])
            with broken(one):
                name = str(restore[1] or checkpoint.latest(folder))
                result["facts"] = checkpoint.restore(folder, name, engine)
            result["restored"], first = held(engine, place), result["facts"]["step"]
        for step in range(first, one["steps"] + 1):
            if step == one.get("save_at", one["steps"]) and "save" in one:
                with broken(one):
                    _save(engine, one, step, place)
                result["saved"] = held(engine, place)
            if step < one["steps"]:
                result["losses"].append(_step(engine, step, place))
        if one.get("kill"):

            def save(name: str, step: int) -> None:
                _save(engine, {**one, "save": [one["kill"], name]}, step, place)

            result["kills"] = kill_everywhere(one["kill"], save)
        result["held"] = held(engine, place)
        result["weights"] = weights_of(engine)
    except HeadraceError as error:
        result["error"] = [type(error).__name__, str(error)]
    found: list[Any] = [None] * place.ranks
    dist.all_gather_object(found, result)
    result["every"] = found
    engine.destroy()
    torch.nn.functional.linear = linear  # stage 3 leaves its own, which rounds otherwise in bf16
    gc.freeze()  # DeepSpeed collects garbage at every start, through all of torch's modules
    return result


def _save(engine: Any, one: dict[str, Any], step: int, place: Any) -> None:
    from schemas.storage import storage
    from trainer.engine import checkpoint

    facts = {"step": step, "position": step * BATCH, "ranks": place.ranks, "zero": one["zero"]}
    checkpoint.save(storage(one["save"][0]), one["save"][1], engine, facts)
    if one.get("keep"):
        checkpoint.prune(storage(one["save"][0]), one["keep"])


def main() -> None:
    import torch.distributed as dist

    from trainer.engine import checkpoint_files
    from trainer.engine.deepspeed import join
    from trainer.protocols import Place

    plan, out = sys.argv[1:]
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    place = Place(rank, ranks, rank, "cpu")
    checkpoint_files.SHARD_BYTES = 2500  # several shards of a kind
    join(place)
    results = [_do(one, place) for one in json.loads(Path(plan).read_text())]
    if rank == 0:
        Path(out).write_text(json.dumps(results))
    dist.barrier()
    sys.stderr.flush()
    os._exit(0)  # the groups of so many engines do not always come to their end in order


if __name__ == "__main__":
    main()
