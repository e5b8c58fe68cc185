"""One process, two and four give the loss, gradients and updates of plain PyTorch, at every stage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import ROOT, free_port
from tests.trainer.engine import ranks as worker
from tests.trainer.engine import tiny, tiny_additive, tiny_contrastive
from trainer.config import RunConfig
from trainer.engine.parts import build
from trainer.engine.schedule import learning_rate
from trainer.engine.step import forward_seed
from trainer.protocols import Batch, Place

STAGES = (0, 1, 2, 3)


@pytest.fixture(autouse=True)
def _tiny_parts() -> Iterator[None]:
    tiny.register()
    yield


def config_of(case: str) -> RunConfig:
    return tiny.run_config("unused", **{"length": {"steps": 1}, **worker.CASES[case]})


def run_ranks(
    folder: Path, ranks: int, stages: tuple[int, ...] = STAGES
) -> dict[tuple[int, str], dict[str, Any]]:
    file = folder / f"{ranks}.pt"
    port = str(free_port())
    processes = []
    for rank in range(ranks):
        environment = os.environ | {
            "RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        words = [sys.executable, "-m", "tests.trainer.engine.ranks", str(file), *map(str, stages)]
        processes.append(
            subprocess.Popen(
                words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-3000:]
    found: dict[tuple[int, str], dict[str, Any]] = torch.load(file)
    return found


def forward(config: RunConfig, model: Any, batch: Batch, step: int, ranks: int) -> list[Any]:
    """The whole batch's outputs with graph; with dropout, by micro-batch as the engine seeds it."""
    if not config.model.get("dropout"):
        return list(model(batch["image"], batch["text"]))
    per_rank = config.batch.size // ranks
    micro = min(config.batch.micro or per_rank, per_rank)
    outputs = []
    for rank in range(ranks):
        for number in range(per_rank // micro):
            torch.manual_seed(forward_seed(config.seed, step, rank, number))
            start = rank * per_rank + number * micro
            rows = slice(start, start + micro)
            outputs.append(model(batch["image"][rows], batch["text"][rows]))
    image, text, scale = zip(*outputs, strict=True)
    return [torch.cat(image), torch.cat(text), scale[0]]


def reference(config: RunConfig, ranks: int) -> dict[str, Any]:
    """Plain PyTorch on the whole batch: one forward, one backward, torch's own clipping and SGD."""
    parts = build(config, Place())
    assert parts.source is not None
    model, settings = parts.model, config.optimizer
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and n != "words.weight"]
    spared = [p for n, p in model.named_parameters() if p.ndim <= 1 or n == "words.weight"]
    groups = [{"params": decay}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(
        groups, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    out: dict[str, Any] = {"losses": [], "gradients": [], "norms": []}
    size, steps = config.batch.size, config.length.steps or 0
    for step in range(steps):
        batch = parts.source.batch(np.arange(step * size, (step + 1) * size))
        image, text, scale = forward(config, model, batch, step, ranks)
        if config.objective["name"] == "tiny":
            loss = tiny_contrastive.loss(image, text, scale)
        else:
            pieces = tiny_additive.pieces(image, text, batch["position"])
            means = {name: values[chosen].mean() for name, (values, chosen) in pieces.items()}
            loss = means["near"] + 0.3 * means["even"]
        model.zero_grad()
        loss.backward()
        out["losses"].append(loss.item())
        grads = {
            n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for n, p in model.named_parameters()
        }
        out["gradients"].append({n: g.reshape(-1) for n, g in grads.items()})
        out["norms"].append(
            float(torch.stack([g.square().sum() for g in grads.values()]).sum().sqrt())
        )
        if config.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.schedule, settings.lr, step, steps)
        if settings.name == "sgd":
            optimizer.step()
    out["weights"] = {n: p.detach().reshape(-1) for n, p in model.named_parameters()}
    return out


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative L2, with the floor below which a gradient is rounding."""
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-8 / 1e-5))


def check(found: dict[str, Any], wanted: dict[str, Any], config: RunConfig) -> None:
    assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-6)
    assert found["norms"] == pytest.approx(wanted["norms"], rel=1e-5)
    for mine, theirs in zip(found["gradients"], wanted["gradients"], strict=True):
        assert {n: off(mine[n], theirs[n]) for n in theirs if off(mine[n], theirs[n]) > 1e-5} == {}
    if config.optimizer.name == "sgd":
        for name, weight in wanted["weights"].items():
            assert off(found["weights"][name], weight) < 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "stages"), [(1, STAGES), (2, (1, 3)), (4, STAGES)])
def test_ranks_agree_with_plain_pytorch(
    tmp_path: Path, ranks: int, stages: tuple[int, ...]
) -> None:
    found = run_ranks(tmp_path, ranks, stages)
    assert len(found) == len(stages) * len(worker.CASES)
    for (stage, case), record in found.items():
        print(f"stage {stage}, {case}")  # shown if it fails
        check(record, reference(config_of(case), ranks), config_of(case))


def test_the_reference_is_not_blind() -> None:
    """Counts differ over the parts of a batch, dropout and clipping change numbers."""
    batch = torch.arange(16)
    pieces = tiny_additive.pieces(torch.zeros(16, 1), torch.zeros(16, 1), batch)
    for _, chosen in pieces.values():
        for size in (2, 4, 8):  # a micro-batch, a rank of four, a rank of two
            assert len({int(part.sum()) for part in chosen.split(size)}) > 1
    plain = tiny.run_config("unused", length={"steps": 1}, batch={"size": 16, "micro": 2})
    dropped = reference(config_of("cached"), 4)["losses"][0]
    assert abs(dropped - reference(plain, 4)["losses"][0]) > 1e-3
    assert dropped != reference(config_of("cached"), 2)["losses"][0]
    assert min(reference(config_of("sgd"), 1)["norms"]) > 0.5
