"""A new objective is a module, its line in PARTS and a recipe, as CONTRIBUTING.md says; no more.

The package is copied, the three are added to the copy, and the run is started there by the command.
"""

from __future__ import annotations

import filecmp
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import ROOT
from tests.trainer import real_tokens
from tests.trainer.extension import focal
from tests.trainer.launching.killed_runs import continuations, losses

HERE = Path(__file__).parent
NAME, LINE = "llama-focal", '        "focal": "trainer.objectives.focal",\n'
STEPS, SAVED, GAMMA = 6, 3, 1.5


def added(to: Path) -> Path:
    """A copy of the trainer with the objective, in all that a contributor does; ``before``: without."""
    before = shutil.copytree(
        ROOT / "trainer", to / "before", ignore=shutil.ignore_patterns("__pycache__")
    )
    package = shutil.copytree(before, to / "trainer")
    shutil.copy(HERE / "focal.py", package / "objectives")
    shutil.copy(HERE / f"{NAME}.yaml", package / "recipes")
    config = package / "config.py"
    text = config.read_text(encoding="utf-8")
    assert text.count('    "objective": {\n') == 1
    config.write_text(text.replace('    "objective": {\n', f'    "objective": {{\n{LINE}'))
    return package


def trainer(folder: Path, *words: str) -> str:
    """What a command of the copied trainer prints."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def reference(output: Path, data: Path, step: int) -> float:
    """The focal loss of the step after a checkpoint: the library's Llama and NumPy."""
    import transformers

    from schemas.storage import storage
    from trainer.engine.checkpoint import read_weights
    from trainer.sources.tokens import Settings, Tokens

    weights = read_weights(storage(output).at("checkpoints"), f"step-{step:08}")
    shape = transformers.LlamaConfig(
        vocab_size=len(weights["model.embed_tokens.weight"]),
        **real_tokens.SHAPE,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(shape)
    model.load_state_dict(weights)
    given = Settings(path=str(data), sequence_length=32, document_mask=False)
    batch = Tokens(given, 7).batch(np.arange(step * 8, step * 8 + 8))
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"]).logits.double().numpy()
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    found = np.take_along_axis(p, batch["labels"].numpy()[..., None], -1)
    return float(np.mean((1 - found) ** GAMMA * -np.log(found)))


def test_a_worked_example() -> None:
    """p = 1/2 and 1/4 with gamma 2: ln 2 / 4 and 9/16 of ln 4; the third token is not counted."""
    surprise = torch.tensor([[math.log(2), math.log(4), 0.0]], requires_grad=True)
    labels = torch.tensor([[7, 8, -100]])
    batch: dict[str, Any] = dict.fromkeys(("input_ids", "position_ids"), labels)
    batch["labels"] = labels
    objective = focal.build(focal.Settings(), SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    value = objective.components(lambda **_: {"loss": surprise}, batch)["focal"]
    assert value.item() == pytest.approx(math.log(2) / 4 + math.log(4) * 9 / 16)
    assert objective.counts(batch) == {"focal": 2}
    value.backward()  # type: ignore[no-untyped-call]
    assert surprise.grad is not None and bool(torch.isfinite(surprise.grad).all())


@pytest.mark.slow
def test_it_trains_and_continues_without_a_change_to_the_engine(tmp_path: Path) -> None:
    package, data = added(tmp_path), real_tokens.dataset(tmp_path, 60)
    assert len((HERE / "focal.py").read_text(encoding="utf-8").splitlines()) <= 60
    output = tmp_path / "run"
    words = real_tokens.words(data, output, STEPS, f"objective.gamma={GAMMA}")
    words = [*words[1:], f"checkpoint.every={SAVED}", "data.document_mask=false"]
    assert NAME in trainer(tmp_path, "plan", NAME, *words)
    launch = ["launch", NAME, *words, "--ranks", "2"]
    trainer(tmp_path, *launch)
    first = losses(output)
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    component = {line["step"]: line["focal"] for line in map(json.loads, lines) if "focal" in line}
    assert component == dict(first) and len(first) == STEPS
    assert component[SAVED + 1] == pytest.approx(reference(output, data, SAVED), rel=1e-5)
    # Back to the first checkpoint: the same command makes the same steps again.
    shutil.rmtree(output / "checkpoints" / f"step-{STEPS:08}")
    trainer(tmp_path, *launch)
    assert losses(output)[STEPS:] == first[SAVED:] and continuations(output) == 1
    report = trainer(tmp_path, "report", str(output))
    assert "report.html" in report and "focal" in (output / "report.html").read_text()

    compared = filecmp.dircmp(tmp_path / "before", package, ignore=["__pycache__"])
    assert changes(compared) == ["config.py", "objectives/focal.py", f"recipes/{NAME}.yaml"]
    now = (package / "config.py").read_text(encoding="utf-8")
    assert now.replace(LINE, "") == (tmp_path / "before" / "config.py").read_text(encoding="utf-8")


def changes(compared: filecmp.dircmp[str], prefix: str = "") -> list[str]:
    """Files of two folders that differ, or that only one of them has."""
    found = [*compared.diff_files, *compared.left_only, *compared.right_only]
    found = [f"{prefix}{name}" for name in found]
    for name, below in compared.subdirs.items():
        found += changes(below, f"{prefix}{name}/")
    return sorted(found)
