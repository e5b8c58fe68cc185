"""The language objective on two ranks, at every ZeRO stage, against plain PyTorch on whole logits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.support import ROOT, free_port
from tests.trainer.objectives import language_ranks, words
from trainer.config import RunConfig
from trainer.engine.parts import build
from trainer.protocols import Place


@pytest.fixture(scope="module", autouse=True)
def _words() -> Iterator[None]:
    words.register()
    yield


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], dict[str, Any]]:
    file, port = tmp_path_factory.mktemp("ranks") / "found.pt", str(free_port())
    command = [sys.executable, "-m", "tests.trainer.objectives.language_ranks", str(file)]
    processes = []
    for rank in range(2):
        environment = os.environ | {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        processes.append(
            subprocess.Popen(
                [*command, "0", "1", "2", "3"],
                cwd=ROOT,
                env=environment,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-3000:]
    result: dict[tuple[int, str], dict[str, Any]] = torch.load(file)
    return result


def reference(config: RunConfig) -> dict[str, Any]:
    """The library's logits of the whole batch in one pass, torch's cross-entropy, SGD by hand."""
    parts = build(config, Place())
    assert parts.source is not None
    model = parts.model
    settings, losses, gradients = config.optimizer, [], []
    for step in range(2):
        batch = parts.source.batch(np.arange(step * 8, step * 8 + 8))
        # An additive mask, built pair by pair from the documents' numbers.
        n, length = batch["segments"].shape
        mask = torch.full((n, 1, length, length), -torch.inf)
        for row in range(n):
            for query in range(length):
                same = batch["segments"][row, : query + 1] == batch["segments"][row, query]
                mask[row, 0, query, : query + 1][same] = 0.0
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=mask,
            position_ids=batch["position_ids"],
            use_cache=False,
        ).logits
        loss = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        if weight := config.objective.get("z_loss"):
            square = logits.logsumexp(-1).square()
            loss = loss + weight * square[batch["labels"] >= 0].mean()
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad.flatten().clone() for n, p in model.named_parameters()})
        with torch.no_grad():
            for parameter in model.parameters():
                decay = settings.weight_decay if parameter.ndim > 1 else 0.0
                parameter -= settings.lr * (parameter.grad + decay * parameter)
    weights = {n: p.detach().flatten() for n, p in model.named_parameters()}
    return {"losses": losses, "gradients": gradients, "weights": weights}


@pytest.mark.slow
@pytest.mark.parametrize("case", language_ranks.CASES)
def test_two_ranks_agree_with_whole_logits(
    case: str, found: dict[tuple[int, str], dict[str, Any]]
) -> None:
    wanted = reference(words.run_config("unused", **language_ranks.CASES[case]))
    for stage in range(4):
        run = found[stage, case]
        assert run["losses"] == pytest.approx(wanted["losses"], rel=1e-5), stage
        for ours, theirs in zip(run["gradients"], wanted["gradients"], strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours:
                off = (ours[name] - theirs[name]).norm()
                assert off <= 1e-5 * theirs[name].norm() + 1e-7, (stage, name)
        for name, weight in run["weights"].items():
            torch.testing.assert_close(weight, wanted["weights"][name], rtol=1e-4, atol=1e-6)
