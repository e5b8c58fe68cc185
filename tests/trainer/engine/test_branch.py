"""A run that begins from another's checkpoint: it goes on as that run would, and says where from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import ConflictError, HeadraceError, InputError, UsageError
from schemas.storage import storage
from tests.trainer.engine import tiny
from tests.trainer.engine.test_run import losses, weights
from trainer.config import RunConfig
from trainer.engine.checkpoint_files import Manifest
from trainer.engine.run import train
from trainer.protocols import Place

PLACE = Place()
STEPS, DECAY = 8, 3


@pytest.fixture(autouse=True)
def _tiny_parts() -> Iterator[None]:
    tiny.register()
    yield


def wsd(decay: int) -> dict[str, Any]:
    return {"name": "wsd", "warmup": 2, "decay": decay}


def parent_config(output: Path, **changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "length": {"steps": STEPS},
        "schedule": wsd(DECAY),
        "checkpoint": {"every": 1, "keep": 20},
        "model": {"name": "tiny", "dropout": 0.2},
    }
    return tiny.run_config(output, **{**tree, **changes})


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a stable phase to step 5 and a decay to step 8."""
    tiny.register()
    output = tmp_path_factory.mktemp("parent") / "run"
    assert train(parent_config(output), PLACE) == 0
    return output


def branched(output: Path, run: Path, step: int, **changes: Any) -> RunConfig:
    return parent_config(output, branch={"run": str(run), "step": step}, **changes)


def test_a_branch_where_the_parent_itself_decays_is_the_parent(
    parent: Path, tmp_path: Path
) -> None:
    config = branched(tmp_path / "branch", parent, STEPS - DECAY)
    assert train(config, PLACE) == 0
    assert losses(tmp_path / "branch") == {
        step: loss for step, loss in losses(parent).items() if step > STEPS - DECAY
    }
    mine, theirs = weights(tmp_path / "branch"), weights(parent)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    record = json.loads((tmp_path / "branch" / "run.json").read_text())["branch"]
    at = storage(parent).at("checkpoints")
    assert record["run"] == str(parent) and record["step"] == STEPS - DECAY
    assert record["checkpoint"] == Manifest.load(at, "step-00000005").digest
    assert json.loads((parent / "run.json").read_text())["branch"] is None


def test_a_decay_may_begin_anywhere_and_is_that_of_a_run_of_its_length(
    parent: Path, tmp_path: Path
) -> None:
    """Off step 4 in two steps: the run that was planned for six steps from the beginning."""
    ends = {"length": {"steps": 6}, "schedule": wsd(2)}
    assert train(branched(tmp_path / "branch", parent, 4, zero=1, **ends), PLACE) == 0
    assert train(parent_config(tmp_path / "planned", zero=1, **ends), PLACE) == 0
    mine, theirs = weights(tmp_path / "branch"), weights(tmp_path / "planned")
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-7)
    assert sorted(losses(tmp_path / "branch")) == [5, 6]


def test_a_stopped_branch_continues_from_its_own_checkpoint(parent: Path, tmp_path: Path) -> None:
    data = {"name": "tiny", "stop_at": 6 * 16 + 3}  # in the seventh step
    assert train(parent_config(tmp_path / "from", data=data, length={"steps": 6}), PLACE) == 0
    config = branched(tmp_path / "branch", tmp_path / "from", 5, data=data)
    assert train(config, PLACE) == 143
    assert train(config, PLACE) == 0
    assert sorted(losses(tmp_path / "branch")) == [6, 7, 8]
    with pytest.raises(ConflictError, match=r"holds a run with branch.step=5, and .*step=4"):
        train(branched(tmp_path / "branch", tmp_path / "from", 4, data=data), PLACE)


@pytest.mark.parametrize(
    ("step", "changes", "error", "said"),
    [
        (5, {"model": {"name": "tiny", "width": 8}}, UsageError, r"model.dropout=\(not set\), and"),
        (5, {"seed": 1}, UsageError, "seed=1, and .* has seed=0"),
        (5, {"batch": {"size": 8}}, UsageError, "batch.size=8, and .* has batch.size=16"),
        (5, {"optimizer": {"name": "sgd"}}, UsageError, "optimizer.name=sgd, and .*=adamw"),
        (5, {"data": {"name": "tiny", "bad": 200}}, UsageError, r"data.bad=200, and .*\(not set\)"),
        (9, {}, InputError, r"branch.step=9: .* has no checkpoint of this step; it has: 1, 2, 3"),
        (8, {}, UsageError, "branch.step=8 and a length of 8 steps: .*length.steps=9 at least"),
    ],
)
def test_what_is_not_the_parents_is_refused(
    parent: Path,
    tmp_path: Path,
    step: int,
    changes: dict[str, Any],
    error: type[HeadraceError],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        train(branched(tmp_path / "branch", parent, step, **changes), PLACE)


def test_other_data_under_the_same_settings_is_refused(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.trainer.engine.tiny_source.SUFFIX", "changed")
    with pytest.raises(UsageError, match=r"saved at data tiny-digest, .* begin from it at tiny-ch"):
        train(branched(tmp_path / "branch", parent, 5), PLACE)


def test_another_tokenizer_is_refused(parent: Path, tmp_path: Path) -> None:
    (tmp_path / "branch").mkdir()
    (tmp_path / "branch" / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"is not the tokenizer of branch\.run="):
        train(branched(tmp_path / "branch", parent, 5), PLACE)


@pytest.mark.parametrize("run", ["none", "empty"])
def test_what_is_no_run_is_refused(tmp_path: Path, run: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"it has no run.json; give the output= of another run"):
        train(branched(tmp_path / "branch", tmp_path / run, 5), PLACE)
