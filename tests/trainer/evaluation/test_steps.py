"""Generate, eval and export of an older checkpoint than a run's latest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from schemas.errors import UsageError
from schemas.storage import storage
from tests.trainer.evaluation import runs
from tests.trainer.evaluation.token_data import corpus, trained
from trainer.cli import main
from trainer.engine.checkpoint import read_weights
from trainer.evaluation import language

KEPT = ("checkpoint.every=2", "checkpoint.milestones=2", "evaluate=null")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("steps")
    return trained(root / "run", corpus(root), "optimizer.lr=0.02", *KEPT)


def test_a_step_has_its_own_weights(run: Path) -> None:
    assert language.load(run).facts["checkpoint"] == "step-00000006"
    loaded = language.load(run, step=2)
    assert loaded.facts["checkpoint"] == "step-00000002"
    of_step = read_weights(storage(run).at("checkpoints"), "step-00000002")
    state = loaded.model.state_dict()
    assert all(torch.equal(value, state[name].cpu()) for name, value in of_step.items())


def test_generate_takes_a_step_anywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prompt=the", "tokens=12"]
    said = []
    for command in (
        ["generate", str(run), *words],
        ["generate", str(run), "--step", "2", *words],
        ["generate", str(run), *words, "--step", "2"],
        ["generate", "--step", "2", str(run), *words],
    ):
        assert main(command) == 0
        said.append(capsys.readouterr().out)
    assert said[1] == said[2] == said[3] != said[0]


def test_eval_of_a_step_leaves_the_latests_result(run: Path) -> None:
    words = ["bits", "ngram=0", "xz=false", "documents=3"]
    assert main(["eval", str(run), *words]) == 0
    own = (run / "eval" / "bits.json").read_bytes()
    assert main(["eval", str(run), *words, "--step", "2"]) == 0
    assert (run / "eval" / "bits.json").read_bytes() == own
    file = run / "eval" / "step-00000002" / "eval" / "bits.json"
    found = json.loads(file.read_text())
    assert found["model"]["checkpoint"] == "step-00000002"
    assert found["headline"]["mean"] > json.loads(own)["headline"]["mean"]  # it learned meanwhile


def test_export_of_a_step(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "two"
    assert main(["export", str(run), "--to", str(target), "--step", "2"]) == 0
    exported, mine = (language.load(p, step=s) for p, s in ((target, None), (run, 2)))
    state = mine.model.state_dict()
    assert all(torch.equal(v, state[n]) for n, v in exported.model.state_dict().items())
    assert "step-00000002" in (target / "README.md").read_text().splitlines()[7]


@pytest.mark.parametrize(
    "command", [["generate", "prompt=a"], ["eval", "bits"], ["export", "--to", "never"]]
)
def test_a_step_without_checkpoint_is_refused(
    command: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command[0], str(run), *command[1:], "--step", "3"]) == 2
    said = capsys.readouterr().err
    assert "--step 3" in said and "it has: 2, 4, 6" in said
    (run / "checkpoints" / "step-00000005").mkdir(exist_ok=True)  # what a killed save left
    with pytest.raises(UsageError, match="--step 5"):
        language.load(run, step=5)
    with pytest.raises(UsageError, match=r"--step 2: .* is not a run"):
        language.load(run.parent, step=2)


def test_an_image_text_run_has_its_steps(tmp_path: Path) -> None:
    kept = ("checkpoint.every=1", "checkpoint.milestones=1")
    run = runs.trained(tmp_path / "run", runs.curated(tmp_path / "curated"), *kept)
    loaded, latest = language.load(run, step=1), language.load(run)
    assert [one.facts["checkpoint"] for one in (loaded, latest)] == [
        "step-00000001",
        "step-00000002",
    ]
    of_step = read_weights(storage(run).at("checkpoints"), "step-00000001")
    state, last = loaded.model.state_dict(), latest.model.state_dict()
    assert all(torch.equal(value, state[name].cpu()) for name, value in of_step.items())
    assert not all(torch.equal(value, last[name]) for name, value in state.items())
