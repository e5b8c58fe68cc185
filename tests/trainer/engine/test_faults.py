"""Faults of training: what a spike is, what is left out, and what a continued run makes of it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import CheckFailed, InputError, UsageError
from schemas.storage import storage
from tests.trainer.engine import tiny
from tests.trainer.engine.test_run import lines, losses, weights
from trainer.config import FaultPolicy, RunConfig, Spikes
from trainer.engine import checkpoint
from trainer.engine.checkpoint_files import Manifest
from trainer.engine.deepspeed import parameter_groups
from trainer.engine.faults import Fault, Faults, Normal, Spike
from trainer.engine.parts import build
from trainer.engine.run import train
from trainer.engine.schedule import learning_rate
from trainer.protocols import Place

PLACE = Place()
BATCH, STEPS = 16, 10


@pytest.fixture(autouse=True)
def _tiny_parts() -> Iterator[None]:
    tiny.register()
    yield


def config_of(output: Path, policy: dict[str, Any], **faults: list[int]) -> RunConfig:
    """A run of ten steps with a checkpoint at every fourth; ``faults``: steps (from 0) by kind."""
    at = {kind: [step * BATCH + 5 for step in steps] for kind, steps in faults.items()}
    return tiny.run_config(
        output,
        objective={"name": "tiny_faulty", **at},
        length={"steps": STEPS},
        checkpoint={"every": 4, "keep": 9},
        faults=policy,
    )


def plain(config: RunConfig, left_out: set[int]) -> dict[str, torch.Tensor]:
    """The weights after all steps but those left out, by nothing but PyTorch, in one process."""
    parts = build(config, PLACE)
    assert parts.source is not None
    model, objective = parts.model, parts.objective
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.optimizer.weight_decay),
        betas=config.optimizer.betas,
        eps=config.optimizer.eps,
    )
    for step in range(STEPS):
        if step in left_out:
            continue
        batch = parts.source.batch(np.arange(step * BATCH, (step + 1) * BATCH))
        counts = objective.counts(batch)  # type: ignore[union-attr]
        sums = objective.components(model, batch)  # type: ignore[union-attr,call-arg,arg-type]
        loss = sum(
            w * sums[n] / counts[n]
            for n, w in objective.weights.items()  # type: ignore[union-attr]
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.schedule, config.optimizer.lr, step, STEPS)
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(mine[name], theirs[name]) for name in theirs)


# -- statistics and budget --------------------------------------------------------------------


def test_a_spike_is_told_from_the_median_of_the_steps_before() -> None:
    normal = Normal("loss", 6.0, 32)
    values = np.random.default_rng(1).normal(3.0, 0.2, 400)
    seen: list[float] = []
    for value in values:
        last = np.array(seen[-32:])
        if len(last) < 16:
            assert normal.limit() == math.inf
        else:
            deviation = 1.4826 * np.median(np.abs(last - np.median(last)))
            assert normal.limit() == pytest.approx(np.median(last) + 6 * deviation)
        normal.check(float(min(value, 3.4)))
        normal.note(float(value))
        seen.append(float(value))
    with pytest.raises(Spike, match=r"the loss 9 is a spike: above .* by the last 32 steps"):
        normal.check(9.0)
    normal.check(0.0)  # a low loss is none
    limit = normal.limit()
    for _ in range(8):  # spikes that were made, as with a larger faults.spike.loss, hide no other
        normal.note(100.0)
    assert normal.limit() < 2 * limit < 100


def test_a_loss_that_stands_still_makes_no_noise_a_spike() -> None:
    normal = Normal("loss", 6.0, 8)
    for _ in range(8):
        normal.note(2.0)
    assert normal.limit() == pytest.approx(2.0 * 1.06)


def test_spikes_are_looked_for_only_if_asked(tmp_path: Path) -> None:
    faults = Faults(FaultPolicy(spike=Spikes(gradient=6.0, window=8)), tmp_path)
    for _ in range(20):
        faults.loss.note(1.0)
        faults.gradient.note(1.0)
    faults.loss.check(1e9)
    with pytest.raises(Spike, match="the gradient's norm 2 is a spike"):
        faults.gradient.check(2.0)


def test_the_budget_counts_faults_within_so_many_steps(tmp_path: Path) -> None:
    faults = Faults(FaultPolicy(policy="skip", budget=2, within=10), tmp_path)
    for step in (3, 6, 13, 16):  # never more than two within ten steps
        faults.add(step, step, "it is so")
    with pytest.raises(
        CheckFailed, match=r"step 20: it is so\. .*number 3 within 10 steps"
    ) as over:
        faults.add(19, 19, "it is so")
    assert "faults.budget=2" in str(over.value)


def test_what_a_checkpoint_holds_and_what_came_after_it_are_put_together(tmp_path: Path) -> None:
    policy = FaultPolicy(policy="skip", spike=Spikes(loss=6.0, window=8))
    faults = Faults(policy, tmp_path)
    faults.loss.note(1.5)
    for step, first in ((2, 1), (7, 7)):
        faults.write(step, {"step": step + 1}, faults.add(step, first, "why"))
    faults.write(9, {"step": 10}, None)  # a fault that stopped the run is not left out
    state = json.loads(json.dumps(faults.state()))
    state["left_out"] = state["left_out"][:1]  # the checkpoint is of step 5
    other = Faults(policy, tmp_path)
    other.restore(state, 5, other.recorded())
    assert other.found == [Fault(2, 1, "why"), Fault(7, 7, "why")]
    assert [step for step in range(12) if other.left_out(step)] == [1, 2, 7]
    assert list(other.loss.values) == [1.5]
    other.restore({}, 8, other.recorded())  # of later checkpoints the file says nothing more
    assert not other.found
    faults.path(7).write_text("{")
    with pytest.raises(InputError, match=r"step-00000008.json is no record of a fault"):
        other.recorded()


# -- whole runs -------------------------------------------------------------------------------


def test_skipped_steps_are_left_out_of_the_run_and_of_its_continuation(tmp_path: Path) -> None:
    """Step 3 has no finite loss, step 7 no finite gradient; the fourth step is a checkpoint."""
    config = config_of(tmp_path / "run", {"policy": "skip"}, loss=[2], gradient=[6])
    assert train(config, PLACE) == 0
    made = weights(tmp_path / "run")
    expected = plain(config, {2, 6})
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, rtol=1e-5, atol=1e-6)
    assert sorted(losses(tmp_path / "run")) == [1, 2, 4, 5, 6, 8, 9, 10]
    events = [line for line in lines(tmp_path / "run") if line.get("event") == "left_out"]
    assert [(e["step"], e["first"]) for e in events] == [(3, 3), (7, 7)]
    # One sample of the micro-batch has no finite loss; a gradient is of all of them.
    assert (events[0]["samples"], events[1]["samples"]) == (1, BATCH)
    assert events[0]["ids"] == [{"pair_id": "0025"}]
    record = json.loads((tmp_path / "run" / "faults" / "step-00000003.json").read_text())
    assert record["positions"] == [0x25] and len(record["places"]) == 1
    facts = Manifest.load(storage(tmp_path / "run").at("checkpoints"), "step-00000004").facts
    assert [one["step"] for one in facts["faults"]["left_out"]] == [2]
    assert facts["position"] == 4 * BATCH
    # Continued from the fourth step, whatever the policy then is, and at another stage.
    for name in ("step-00000008", "step-00000010"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / name)
    again = config.model_copy(update={"faults": FaultPolicy(), "zero": 0})
    assert train(again, PLACE) == 0
    assert same(weights(tmp_path / "run"), made)


@pytest.mark.parametrize(("before", "left_out"), [(100, {4, 5, 6}), (1, {5, 6})])
def test_rewinding_leaves_out_what_came_before_the_fault_too(
    tmp_path: Path, before: int, left_out: set[int]
) -> None:
    """The fault is in the seventh step, the last checkpoint after the fourth."""
    policy = {"policy": "rewind", "before": before}
    config = config_of(tmp_path / "run", policy, gradient=[6])
    config = config.model_copy(update={"zero": 3, "log_every": 1})
    assert train(config, PLACE) == 0
    expected, made = plain(config, left_out), weights(tmp_path / "run")
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, rtol=1e-5, atol=1e-6)
    event = next(e for e in lines(tmp_path / "run") if e.get("event") == "left_out")
    assert (event["first"], event["step"], event["back"]) == (min(left_out) + 1, 7, 4)
    # Killed after the return and before the next checkpoint: the same again.
    for name in ("step-00000008", "step-00000010"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / name)
    assert train(config, PLACE) == 0
    assert same(weights(tmp_path / "run"), made)


def test_a_fault_before_the_first_checkpoint_goes_back_to_the_beginning(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", {"policy": "rewind"}, loss=[1])
    assert train(config, PLACE) == 0
    expected, made = plain(config, {0, 1}), weights(tmp_path / "run")
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, rtol=1e-5, atol=1e-6)


def test_a_spike_is_skipped_and_its_statistic_survives_a_restart(tmp_path: Path) -> None:
    """The spike is in the ninth step; the run starts again after the eighth, too late to learn anew."""
    spike = {"loss": 20.0, "gradient": 50.0, "window": 14}
    config = config_of(tmp_path / "run", {"policy": "skip", "spike": spike}, large=[8])
    stopping = {"name": "tiny", "stop_at": 7 * BATCH + 3}
    expected = plain(config, {8})
    config = config.model_copy(update={"data": stopping})
    assert train(config, PLACE) == 143
    facts = Manifest.load(storage(tmp_path / "run").at("checkpoints"), "step-00000008").facts
    found = losses(tmp_path / "run")
    assert facts["faults"]["loss"] == [found[step] for step in range(1, 9)]
    assert len(facts["faults"]["gradient"]) == 8
    assert train(config, PLACE) == 0
    event = next(e for e in lines(tmp_path / "run") if e.get("event") == "left_out")
    assert event["step"] == 9 and "is a spike: above" in event["fault"]
    made = weights(tmp_path / "run")
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, rtol=1e-5, atol=1e-6)


def test_over_the_budget_the_run_ends_and_says_so(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", {"policy": "skip", "budget": 1}, loss=[2, 5])
    for _ in range(2):  # the same command meets it again
        with pytest.raises(CheckFailed, match=r"step 6: the loss is not finite.*faults.budget=1"):
            train(config, PLACE)
    assert checkpoint.latest(storage(tmp_path / "run").at("checkpoints")) == "step-00000004"
    more = config.model_copy(update={"faults": FaultPolicy(policy="skip", budget=2)})
    assert train(more, PLACE) == 0
    assert sorted(losses(tmp_path / "run")) == [1, 2, 4, 5, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("block", "changes"),
    [
        ({"bf16": {"check_grad_overflow": False}}, {"precision": "bf16", "zero": 2}),
        ({"zero_optimization": {"compute_grad_norm": False}}, {"zero": 2}),
    ],
)
def test_settings_that_let_a_fault_pass_are_refused(
    tmp_path: Path, block: dict[str, Any], changes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=r"=false would let a gradient that is not finite"):
        train(tiny.run_config(tmp_path, deepspeed=block, **changes), PLACE)
