"""Distillation: the loss by hand over whole logits, a frozen teacher, two ranks, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from schemas.errors import UsageError
from tests.support import ROOT, free_port
from tests.trainer.objectives import words
from trainer.engine.parts import build
from trainer.models import decoder_model
from trainer.protocols import Parts, Place

TEACHER = words.SHAPE | {"hidden_size": 48, "num_attention_heads": 4, "max_position_embeddings": 24}
TEACHER |= {"rms_norm_eps": 1e-5}


@pytest.fixture(autouse=True)
def _words() -> None:
    words.register()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    decoder_model.new("llama", TEACHER | {"tie_word_embeddings": True}, 5).save_pretrained(folder)
    return folder


def parts(teacher: Path, **changes: Any) -> Parts:
    objective = {"name": "distillation", "teacher": str(teacher), "rows": 9}
    tree = {"objective": {**objective, **changes.pop("objective", {})}, **changes}
    return build(words.run_config("unused", **tree), Place())


def by_hand(
    of: Parts, teacher: Path, temperature: float, samples: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of cross-entropy and divergence over tokens that count, from both models' whole logits."""
    import transformers

    assert of.source is not None
    batch = of.source.batch(np.arange(samples))
    mask = decoder_model.document_mask(batch["position_ids"])
    inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
    inputs |= {"attention_mask": mask, "use_cache": False}
    logits = of.model(**inputs).logits
    frozen = transformers.LlamaForCausalLM.from_pretrained(teacher, attn_implementation="sdpa")
    with torch.no_grad():
        wanted = frozen(**inputs).logits
    counted = batch["labels"] >= 0
    token = cross_entropy(logits[counted], batch["labels"][counted], reduction="sum")
    ours, theirs = ((x[counted] / temperature).log_softmax(-1) for x in (logits, wanted))
    return token, kl_div(ours, theirs, reduction="sum", log_target=True)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (2.0, 0.9), (0.5, 1.0)])
def test_loss_and_gradient_are_those_by_hand(
    temperature: float, alpha: float, teacher: Path
) -> None:
    of = parts(teacher, objective={"temperature": temperature, "alpha": alpha})
    objective: Any = of.objective
    assert objective.weights == {"token": 1 - alpha, "divergence": alpha * temperature**2}
    assert of.source is not None
    batch = of.source.batch(np.arange(4))
    counts = objective.counts(batch)
    assert counts["token"] == counts["divergence"] == int((batch["labels"] >= 0).sum())
    found = objective.components(of.model, batch)
    (found["token"] * (1 - alpha) + found["divergence"] * alpha * temperature**2).backward()
    mine = [p.grad.clone() for p in of.model.parameters()]
    of.model.zero_grad()
    token, divergence = by_hand(of, teacher, temperature)
    (token * (1 - alpha) + divergence * alpha * temperature**2).backward()
    torch.testing.assert_close(found["token"], token)
    torch.testing.assert_close(found["divergence"], divergence)
    for ours, parameter in zip(mine, of.model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-5)


def test_a_student_that_is_the_teacher_has_nothing_to_learn(teacher: Path) -> None:
    of = parts(teacher, model={"name": "decoder", "size": "tiny", "shape": TEACHER})
    assert of.source is not None
    objective: Any = of.objective
    of.model.load_state_dict(objective._teacher.state_dict())
    before = [p.clone() for p in objective._teacher.parameters()]
    found = objective.components(of.model, of.source.batch(np.arange(4)))
    found["divergence"].backward()
    assert found["divergence"].item() == pytest.approx(0, abs=1e-4)
    assert max(p.grad.abs().max() for p in of.model.parameters()) < 1e-4
    assert all(p.grad is None for p in objective._teacher.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(before, objective._teacher.parameters(), strict=True)
    )


def test_what_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="64 tokens apart, and the student 80"):
        shape = words.SHAPE | {"vocab_size": 80}
        parts(teacher, model={"name": "decoder", "size": "tiny", "shape": shape})
    with pytest.raises(UsageError, match=r"25 tokens is longer than the 24 .* objective\.teacher="):
        parts(teacher, data={"name": "words", "length": 25})


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_whole_logits(teacher: Path, tmp_path: Path) -> None:
    """The first loss of two ranks is that by hand, at stages 0 and 3, in bf16 near to it."""
    port, processes = str(free_port()), []
    for rank in range(2):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-m", "tests.trainer.objectives.distil_rank"]
        command += [str(tmp_path / "losses"), str(teacher)]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        )
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()[-3000:]
    losses = torch.load(tmp_path / "losses")
    of = parts(teacher, objective={"temperature": 2.0})
    token, divergence = by_hand(of, teacher, 2.0, samples=8)
    assert of.source is not None
    count = int((of.source.batch(np.arange(8))["labels"] >= 0).sum())
    first = (0.5 * token + 0.5 * 4 * divergence).item() / count
    assert losses[0, "fp32"][0] == pytest.approx(first, rel=1e-5)
    assert losses[3, "fp32"] == pytest.approx(losses[0, "fp32"], rel=1e-5)
    assert losses[3, "bf16"] == pytest.approx(losses[0, "fp32"], rel=2e-2)
    assert losses[0, "fp32"][-1] < first
