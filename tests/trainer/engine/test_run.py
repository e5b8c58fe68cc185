"""Whole runs of the tiny model: they continue bit for bit, stop when asked, and refuse what is wrong."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import CheckFailed, ConflictError, IntegrityError, UsageError
from schemas.storage import storage
from tests.trainer.engine import tiny
from trainer.engine import checkpoint
from trainer.engine.checkpoint_files import Manifest
from trainer.engine.parts import build
from trainer.engine.run import train
from trainer.protocols import Place

PLACE = Place()
DROPOUT = {"name": "tiny", "dropout": 0.2}
STEPS = {"model": DROPOUT, "length": {"steps": 8}, "checkpoint": {"every": 2}}


@pytest.fixture(autouse=True)
def _tiny_parts() -> Iterator[None]:
    tiny.register()
    yield


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def losses(output: Path) -> dict[int, float]:
    """{step: loss}; the last line of a step counts."""
    return {line["step"]: line["loss"] for line in lines(output) if "loss" in line}


def weights(output: Path) -> dict[str, torch.Tensor]:
    folder = storage(output).at("checkpoints")
    name = checkpoint.latest(folder)
    assert name is not None
    return checkpoint.read_weights(folder, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps that nothing disturbed."""
    tiny.register()
    output = tmp_path_factory.mktemp("whole") / "run"
    assert train(tiny.run_config(output, **STEPS), PLACE) == 0
    return output


def test_a_run_directory_says_what_ran(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = json.loads((whole / "run.json").read_text())
    assert run["parameters"] == sum(w.numel() for w in weights(whole).values())
    assert (run["recipe"], run["seed"], run["ranks"]) == ("tiny", 0, 1)
    assert run["data"]["digest"] == "tiny-digest"
    assert run["environment"]["versions"]["torch"]
    found = lines(whole)
    assert [line["event"] for line in found if "event" in line] == [
        "started", *["saved"] * 4, "finished",
    ]  # fmt: skip
    steps = [line for line in found if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 9))
    for line in steps:
        assert line["samples"] == 16 * line["step"]
        assert line["epoch"] == pytest.approx(line["samples"] / 100)
        assert line["loss"] == line["contrastive"]
        assert line["grad_norm"] > 0 and line["host_ms"] > 0 and line["samples_per_s"] > 0
    assert losses(whole)[8] < losses(whole)[1]
    names = {path.name for path in (whole / "checkpoints").iterdir() if path.is_dir()}
    assert {"step-00000006", "step-00000008"} == {n for n in names if n.startswith("step-")}


def test_tensorboard_holds_the_same_numbers(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"))
    events.Reload()
    shown = {e.step: e.value for e in events.Scalars("loss")}
    assert shown == pytest.approx(losses(whole), rel=1e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_continues_bit_for_bit(
    whole: Path, tmp_path: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    data = {"name": "tiny", "stop_at": 70, "signal": int(number)}  # in the fifth step
    config = tiny.run_config(tmp_path, **{**STEPS, "data": data})
    before = signal.getsignal(number)
    assert train(config, PLACE) == 128 + number
    assert signal.getsignal(number) is before
    assert list(losses(tmp_path)) == [1, 2, 3, 4, 5]
    screen = capfd.readouterr().err
    assert "stopped at step 5 of 8, saved; the same command continues" in screen
    assert "Traceback" not in screen
    assert train(config, PLACE) == 0  # starts after the step that the signal met
    assert losses(tmp_path) == losses(whole)
    mine, theirs = weights(tmp_path), weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    events = [line["event"] for line in lines(tmp_path) if "event" in line]
    assert events.count("started") == 1 and events.count("continued") == 1


def test_loaders_stages_and_micro_batches_may_change_when_a_run_continues(tmp_path: Path) -> None:
    plain = {**STEPS, "model": {"name": "tiny"}}
    assert train(tiny.run_config(tmp_path / "whole", **plain), PLACE) == 0
    output = tmp_path / "changed"
    data = {"name": "tiny", "stop_at": 70}
    assert train(tiny.run_config(output, **{**plain, "data": data}), PLACE) == 143
    changes = {"zero": 3, "loaders": 3, "batch": {"size": 16, "micro": 4}, "data": data}
    assert train(tiny.run_config(output, **{**plain, **changes}), PLACE) == 0
    assert losses(output) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_bf16_follows_fp32(tmp_path: Path, zero: int) -> None:
    plain = {"model": {"name": "tiny", "width": 32}, "length": {"steps": 6}, "clip": 1.0}
    assert train(tiny.run_config(tmp_path / "fp32", **plain), PLACE) == 0
    batch = {"size": 16, "micro": 4 if zero else 16}
    changes = {"precision": "bf16", "zero": zero, "batch": batch}
    assert train(tiny.run_config(tmp_path / "bf16", **{**plain, **changes}), PLACE) == 0
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=2e-2)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero", [0, 1, 3])
def test_the_first_step_is_adamws_first(tmp_path: Path, precision: str, zero: int) -> None:
    """DeepSpeed makes a step of its own at its start: it must leave no count and no decay."""
    config = tiny.run_config(
        tmp_path,
        length={"steps": 1},
        zero=zero,
        precision=precision,
        schedule={"name": "constant"},
        optimizer={"lr": 1e-2, "weight_decay": 10.0, "betas": [0.9, 0.95]},
    )
    begun = build(config, PLACE).model
    # DeepSpeed makes masters of the weights as they are in the run's precision.
    start = torch.bfloat16 if precision == "bf16" else torch.float32
    before = {n: value.detach().to(start, copy=True) for n, value in begun.named_parameters()}
    assert train(config, PLACE) == 0
    decayed = [n for n, w in before.items() if w.ndim > 1 and n not in begun.no_decay()]
    after = weights(tmp_path)
    assert decayed
    for name in decayed:
        # The first step of Adam is lr times the gradient's sign, beside lr * weight_decay = 0.1.
        moved = (after[name] - 0.9 * before[name].float()).abs()
        assert float(moved.median()) == pytest.approx(1e-2, rel=1e-3)
    folder = storage(tmp_path).at("checkpoints")
    tensors = Manifest.load(folder, "step-00000001").tensors
    assert {found["step"] for found in tensors.values()} == {1.0}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (
            {"zero_optimization": {"reduce_bucket_size": 0}},
            "deepspeed: reduce_bucket_size=0: Input",
        ),
        ({"log_level": "loud"}, "deepspeed: loud is not one of"),
    ],
)
def test_what_deepspeed_refuses_is_named(tmp_path: Path, block: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train(tiny.run_config(tmp_path, deepspeed=block, zero=1), PLACE)


def test_stage_3_leaves_torch_as_it_was(tmp_path: Path) -> None:
    from torch.nn import functional

    plain = functional.linear
    assert train(tiny.run_config(tmp_path, zero=3, length={"steps": 1}), PLACE) == 0
    assert functional.linear is plain
    assert plain.__module__ != "deepspeed.runtime.zero.linear"


def test_a_checkpoint_of_another_seed_is_refused(tmp_path: Path) -> None:
    """Another seed is another order: with run.json lost, nothing else would say so."""
    settings = {"length": {"steps": 4}, "checkpoint": {"every": 2}}
    assert train(tiny.run_config(tmp_path, **settings), PLACE) == 0
    (tmp_path / "run.json").unlink()
    with pytest.raises(IntegrityError, match="saved at seed 0, and this run would continue at 1"):
        train(tiny.run_config(tmp_path, **settings, seed=1), PLACE)


def test_a_finished_run_does_nothing_more(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = losses(whole)
    assert train(tiny.run_config(whole, **STEPS), PLACE) == 0
    assert "finished before, at step 8" in capfd.readouterr().err
    assert losses(whole) == before


def test_a_torn_line_of_a_killed_run_is_cut(tmp_path: Path) -> None:
    data = {"name": "tiny", "stop_at": 40}
    config = tiny.run_config(tmp_path, data=data)
    assert train(config, PLACE) == 143
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert train(config, PLACE) == 0
    assert list(losses(tmp_path)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": {"lr": 0.5}}, "optimizer.lr=0.01, and this one has optimizer.lr=0.5"),
        ({"seed": 3}, "seed=0, and this one has seed=3"),
        ({"model": {"name": "tiny", "width": 8}}, "model.width=(not set)"),
        ({"data": {"name": "tiny", "dataset": "other"}}, "data.dataset=(not set)"),
    ],
)
def test_a_directory_of_another_run_is_refused(
    whole: Path, changes: dict[str, Any], said: str
) -> None:
    plain = {**STEPS, **changes}
    if "model" in changes:
        plain["model"] = {**DROPOUT, **changes["model"]}
    with pytest.raises(ConflictError, match="holds a run with") as refused:
        train(tiny.run_config(whole, **plain), PLACE)
    assert said in str(refused.value)


def test_other_data_under_the_same_settings_is_refused(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.trainer.engine.tiny_source.SUFFIX", "changed")
    with pytest.raises(
        ConflictError, match="on dataset tiny-digest, and the data is now tiny-chan"
    ):
        train(tiny.run_config(whole, **STEPS), PLACE)


@pytest.mark.parametrize("zero", [0, 2])
@pytest.mark.parametrize("objective", ["tiny", "tiny_additive"])
def test_a_loss_that_is_no_number_ends_the_run_before_the_weights_change(
    tmp_path: Path, zero: int, objective: str
) -> None:
    # Sample 39 is in the third step (32 to 47), in its second micro-batch (36 to 39).
    changes = {
        "data": {"name": "tiny", "bad": 39},
        "objective": {"name": objective},
        "zero": zero,
        "batch": {"size": 16, "micro": 4},
        "checkpoint": {"every": 1},
    }
    for _ in range(2):  # the same command meets it again
        with pytest.raises(CheckFailed, match=r"step 3: the loss is not finite") as ended:
            train(tiny.run_config(tmp_path, **changes), PLACE)
        assert "from 1 sample: 39 (pair_id 0027)" in str(ended.value)
    record = json.loads((tmp_path / "faults/step-00000003.json").read_text())
    assert record["positions"] == [39]
    assert [place["ids"]["pair_id"] for place in record["places"]][-1] == "0027"
    assert checkpoint.latest(storage(tmp_path).at("checkpoints")) == "step-00000002"
    assert all(bool(torch.isfinite(w).all()) for w in weights(tmp_path).values())


def test_a_gradient_that_is_no_number_ends_the_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    from tests.trainer.engine import tiny_model

    plain = tiny_model.TwoTowers.forward

    def steep(self: Any, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, y, scale = plain(self, image, text)
        return (Steep.apply(x) if bool((text[:, 0] == 15).any()) else x), y, scale

    monkeypatch.setattr(tiny_model.TwoTowers, "forward", steep)
    for zero in (0, 1):
        output = tmp_path / str(zero)
        with pytest.raises(CheckFailed, match="the gradient is not finite"):
            train(tiny.run_config(output, zero=zero, checkpoint={"every": 1}), PLACE)


@pytest.mark.parametrize("output", ["s3://bucket/run", "file"])
def test_an_output_that_is_no_local_directory_is_refused(tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("")
    output = output if "://" in output else str(tmp_path / output)
    with pytest.raises(UsageError, match="output="):
        train(tiny.run_config(output), PLACE)
