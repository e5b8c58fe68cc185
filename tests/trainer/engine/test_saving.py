"""Checkpoints written while training goes on, and which are kept."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import StorageError
from schemas.storage import storage
from schemas.storage_local import LocalBackend
from tests.trainer.engine import tiny
from tests.trainer.engine.test_run import lines, losses, weights
from trainer.engine import checkpoint, checkpoint_save, checkpoint_saver
from trainer.engine.checkpoint_files import Manifest, committed
from trainer.engine.run import train
from trainer.protocols import Place

PLACE = Place()


@pytest.fixture(autouse=True)
def _tiny_parts() -> Iterator[None]:
    tiny.register()
    yield


def run(output: Path, wait: bool, every: int = 2, **changes: Any) -> int:
    saving = {"every": every, "keep": 9, "wait": wait}
    return train(
        tiny.run_config(output, **{"length": {"steps": 6}, "checkpoint": saving, **changes}), PLACE
    )


def digests(output: Path) -> dict[str, str]:
    at = storage(output).at("checkpoints")
    return {name: Manifest.load(at, name).digest for name in committed(at)}


@pytest.mark.parametrize(
    ("zero", "precision"), [(0, "fp32"), (0, "bf16"), (1, "bf16"), (2, "fp32"), (3, "bf16")]
)
def test_what_is_written_while_training_goes_on_is_what_was_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: int, precision: str
) -> None:
    """The thread writes late: by then other steps have changed every weight and moment."""
    changes = {"zero": zero, "precision": precision, "data": {"name": "tiny"}}
    assert run(tmp_path / "at once", True, 3, **changes) == 0
    write = checkpoint_save.write_shard

    def late(*args: Any) -> Any:
        time.sleep(0.15)
        return write(*args)

    monkeypatch.setattr(checkpoint_save, "write_shard", late)
    assert run(tmp_path / "meanwhile", False, 3, **changes) == 0
    assert digests(tmp_path / "meanwhile") == digests(tmp_path / "at once")
    assert list(digests(tmp_path / "meanwhile")) == ["step-00000003", "step-00000006"]
    order = [
        "saved" if line.get("event") == "saved" else line["step"]
        for line in lines(tmp_path / "meanwhile")
        if "loss" in line or line.get("event") == "saved"
    ]
    assert order.index("saved") > order.index(4), "the fourth step was made before the commit"


def test_a_full_disk_in_the_background_ends_the_run_with_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LocalBackend.do_write

    def full(self: Any, file: Any, data: bytes, path: str) -> None:
        if len(data) > 1000 and committed(storage(tmp_path).at("checkpoints")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, file, data, path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "do_write", full)
        with pytest.raises(StorageError, match="the disk is full"):
            run(tmp_path, False)
    at = storage(tmp_path).at("checkpoints")
    assert checkpoint.latest(at) == "step-00000002" and committed(at) == ["step-00000002"]
    assert run(tmp_path, False) == 0
    assert list(digests(tmp_path)) == ["step-00000002", "step-00000004", "step-00000006"]


def test_milestones_stay_beside_the_newest(tmp_path: Path) -> None:
    saving = {"every": 2, "keep": 1, "milestones": 3}
    config = tiny.run_config(tmp_path, length={"steps": 8}, checkpoint=saving)
    assert train(config, PLACE) == 0
    assert list(digests(tmp_path)) == ["step-00000003", "step-00000006", "step-00000008"]


@pytest.mark.parametrize("wait", [True, False])
def test_a_signal_during_a_save_ends_the_run_after_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    save = checkpoint_saver.Saver.save

    def interrupted(self: Any, step: int, *args: Any, **kwargs: Any) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGTERM)
        save(self, step, *args, **kwargs)

    monkeypatch.setattr(checkpoint_saver.Saver, "save", interrupted)
    assert run(tmp_path, wait) == 143
    assert list(losses(tmp_path)) == [1, 2, 3]
    assert list(digests(tmp_path)) == ["step-00000002", "step-00000003"]
    monkeypatch.undo()
    assert run(tmp_path, wait) == 0
    assert run(tmp_path / "whole", wait) == 0
    mine, theirs = weights(tmp_path), weights(tmp_path / "whole")
    assert all(bool((mine[name] == theirs[name]).all()) for name in theirs)
