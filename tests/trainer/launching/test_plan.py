"""`trainer plan`, against DeepSpeed's estimators, counts by hand, and the run that it foretells."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schemas.dataset import open_dataset
from tests.trainer.launching.making import pairs, planned, words
from trainer.cli import main
from trainer.config import RunConfig, load
from trainer.launching import memory, stages
from trainer.launching.memory import Parameters, model_states
from trainer.launching.timeline import timeline
from trainer.protocols import Parts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs(tmp_path_factory.mktemp("plan") / "pairs")


@pytest.mark.parametrize("ranks, hosts", [(1, 1), (3, 1), (8, 1), (16, 2), (384, 48)])
def test_model_states_are_those_of_deepspeeds_live_estimators(
    ranks: int, hosts: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the byte, with and without offload, for what the estimators count of a live model."""
    import torch
    from deepspeed.runtime.zero import stage3, stage_1_and_2

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(1013, 37), torch.nn.Linear(37, 911), torch.nn.Linear(911, 1013)
    )
    model.append(torch.nn.Linear(37, 1013, bias=False))
    model[3].weight = model[0].weight  # tied: counted once
    of = memory.count(model)
    found: dict[tuple[int, bool], set[tuple[int, int]]] = {}
    for stage, module, name in (
        (2, stage_1_and_2, "estimate_zero2_model_states_mem_needs"),
        (3, stage3, "estimate_zero3_model_states_mem_needs"),
    ):
        cold = getattr(module, name)

        def noted(*args: Any, _cold: Any = cold, _stage: int = stage, **given: Any) -> Any:
            host, device, *_ = _cold(*args, **given)
            if given.get("zero_init", True) and not given.get("cpu_offload_params", False):
                offload = given["cpu_offload"]
                found.setdefault((_stage, offload), set()).add((device, host if offload else 0))
            return _cold(*args, **given)

        monkeypatch.setattr(module, name, noted)
        live = getattr(module, f"{name}_all_live")
        live(model, num_gpus_per_node=ranks // hosts, num_nodes=hosts)
    assert capsys.readouterr().out.count("Estimated memory needed") == 2
    for (stage, offload), expected in found.items():
        states = model_states(of, stage, ranks, bf16=True, hosts=hosts, offload=offload)
        assert {(states.device, states.host)} == expected, (stage, offload)
    assert len(found) == 4


@pytest.mark.parametrize("ranks", [1, 2, 8, 384])
def test_model_states_of_given_sizes_are_those_of_the_cold_estimators(ranks: int) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    total, largest = 1_859_000_001, 923_000_003
    of = Parameters(total, total, largest)
    for offload in (False, True):
        host, device = estimate_zero2_model_states_mem_needs(total, ranks, 1, cpu_offload=offload)
        states = model_states(of, 2, ranks, bf16=True, offload=offload)
        assert (states.device, states.host) == (device, host if offload else 0)
        host, device, _ = estimate_zero3_model_states_mem_needs(
            total, largest, ranks, 1, cpu_offload=offload, cpu_offload_params=False
        )
        states = model_states(of, 3, ranks, bf16=True, offload=offload)
        assert (states.device, states.host) == (device, host if offload else 0)


def test_model_states_of_one_rank_are_what_torch_holds() -> None:
    """ZeRO 0, fp32: the bytes of weights, gradients and optimizer state after a step."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(30, 50), torch.nn.Linear(50, 7))
    model[0].bias.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    for name, moments, optimizer in (
        ("adamw", 8, torch.optim.AdamW(trained)),
        ("momentum", 4, torch.optim.SGD(trained, 0.1, momentum=0.9)),
        ("sgd", 0, torch.optim.SGD(trained, 0.1)),
    ):
        model(torch.randn(2, 30)).sum().backward()
        optimizer.step()
        held = list(model.parameters()) + [p.grad for p in trained]
        for state in optimizer.state.values():
            held += [v for v in state.values() if torch.is_tensor(v) and v.ndim]
        expected = sum(t.numel() * 4 for t in held)
        found = model_states(memory.count(model), 0, 1, bf16=False, moments=moments)
        assert found.device == expected, name


def test_partitioning_saves_what_it_should() -> None:
    of = Parameters(10**9, 10**9, 10**7)
    for bf16 in (False, True):
        by_stage = [model_states(of, stage, 64, bf16=bf16).device for stage in (1, 2, 3)]
        assert by_stage == sorted(by_stage, reverse=True)
        alone = [model_states(of, stage, 1, bf16=bf16).device for stage in (1, 2)]
        assert alone[0] == alone[1]


def small(rows: int, precision: str = "fp32") -> Any:
    """The timeline of two linear layers with a ReLU after each, on rows of 8 numbers."""
    import torch

    model = torch.nn.Sequential(
        torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4), torch.nn.ReLU()
    )
    source = SimpleNamespace(batch=lambda positions: {"x": torch.zeros(len(positions), 8)})
    objective = SimpleNamespace(
        additive=True,
        weights={"sum": 1.0},
        components=lambda model, batch: {"sum": model(batch["x"]).sum()},
    )
    parts = Parts(model=model, source=source, objective=objective)  # type: ignore[arg-type]
    return timeline(SimpleNamespace(precision=precision), parts, rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision, item", [("fp32", 4), ("bf16", 2)])
def test_the_worst_moment_of_a_small_model_is_as_counted_by_hand(precision: str, item: int) -> None:
    """Forward keeps the outputs of both ReLUs (their inputs go) and the sum; the worst moment is the
    gradient of the first linear layer's weight, beside what leads there."""
    rows = 5
    found = stages.working(small(rows, precision), 0, 1, stages.Settings(), bf16=item == 2)
    forward = rows * (32 + 4) + 1
    assert found.forward == item * forward
    # Backward: the ReLU's output is gone with its layer; the second layer's gradients are kept.
    second = 4 * 32 + 4
    ahead = (
        rows * 32 + second + rows * 32 + rows * 32
    )  # output, kept, its gradient before and after
    assert found.peak >= item * (second + 2 * rows * 32)
    assert found.peak <= item * (ahead + 8 * 32 + 32 + 2)


def test_stage_3_holds_what_it_gathered_until_it_is_used_again() -> None:
    of = small(5)
    never, soon = (
        stages.working(
            of, 3, 4, stages.Settings(persistent=0, max_reuse=reuse, reduce_bucket=1), bf16=False
        )
        for reuse in (0, 10**9)
    )
    weights = 4 * (8 * 32 + 32 + 32 * 4 + 4)
    assert soon.forward - stages.working(of, 3, 1, stages.Settings(), bf16=False).forward == weights
    assert never.forward < soon.forward
    resident = stages.working(of, 3, 4, stages.Settings(persistent=10**9), bf16=False)
    alone = stages.working(of, 3, 1, stages.Settings(), bf16=False)
    assert resident.forward == alone.forward, "what is never cut needs no gathering"


@pytest.mark.slow
def test_activation_checkpointing_needs_less() -> None:
    from tests.trainer.launching.plan_table import Case, planned

    plain, checkpointed = (planned(Case("llama-110m", 3, on, rows=4)).peak for on in (False, True))
    assert checkpointed < 0.75 * plain


@pytest.mark.slow
def test_planned_memory_is_that_of_a_real_step() -> None:
    """Of the whole table one case a stage; a gradient that is forgotten is 20 % and more."""
    from tests.trainer.launching.plan_table import Case, table

    cases = [Case("llama-110m", stage, stage == 3, rows=1, tokens=256) for stage in (1, 3)]
    for row in table(cases):
        assert row["ratio"] == pytest.approx(1, abs=0.1), row
        assert row["total_ratio"] == pytest.approx(1, abs=0.1), row


def test_a_plan_knows_the_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(capsys, data, tmp_path / "run", "zero=1", "--ranks=2")
    manifest = open_dataset(data).manifest
    assert found["refused"] == []
    assert found["data"]["digest"] == manifest.digest
    assert found["data"]["rows"] == found["data"]["samples_an_epoch"] == manifest.rows == 256
    assert found["epochs"] == 40 * 8 / 256
    assert found["sizes"]["per_rank"] == 4
    assert found["deepspeed"]["zero_optimization"]["stage"] == 1
    assert found["rate"] is None
    assert not (tmp_path / "run").exists(), "a plan writes nothing"
    more = planned(capsys, data, tmp_path / "run", "tokenizer.vocabulary=1300")
    difference = more["parameters"]["total"] - found["parameters"]["total"]
    assert difference == 1000 * 128, "a token is a row of the text tower's width"
    smaller = planned(capsys, data, tmp_path / "run", "batch.micro=1")
    kept = [one["memory"]["0"]["forward"] for one in (more, smaller)]
    assert kept[1] == pytest.approx(kept[0] / 8, rel=0.05)


def test_parameters_are_those_of_the_model(data: Path, tmp_path: Path) -> None:
    from trainer import tokenizer
    from trainer.config import load, part
    from trainer.launching.outline import outline

    config = load("metaclip2-tiny", words(data, tmp_path / "run", 3)[1:])
    module, settings = part("model", config.model)
    trained = tokenizer.train(["w1 w2 w3"] * 9, 300)
    real = module.build(settings, config, Parts(tokenizer=trained))
    counted = memory.count(outline(config).model)
    missing = 300 - trained.get_vocab_size()
    assert counted.total == sum(p.numel() for p in real.parameters()) + missing * 128
    assert all(p.is_meta for p in outline(config).model.parameters())


def test_a_measured_rate_gives_the_time(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    output.mkdir()
    lines: list[dict[str, Any]] = [
        {"event": "started", "step": 0, "ranks": 1},
        {"step": 5, "samples_per_s": 900.0},
        {"event": "continued", "step": 5, "ranks": 2},
        *({"step": 6 + i, "samples_per_s": rate} for i, rate in enumerate((1.0, 20.0, 5.0, 4.0))),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 10, "samp'
    (output / "metrics.jsonl").write_text(text)
    from trainer.config import load
    from trainer.engine import directory

    config: RunConfig = load("metaclip2-tiny", words(data, output, 40)[1:])
    directory.record(config, ranks=2, parameters=1, digest="x")
    found = planned(capsys, data, output, "--ranks=2")
    expected = {"samples_per_s": 5.0, "lines": 3, "ranks": 2, "at_step": 9}
    assert found["rate"] == expected, "the median since the last start, without its first"
    assert main(["plan", *words(data, output, 40)]) == 0
    said = capsys.readouterr().out
    left = (40 - 9) * 8
    assert f"time: {left / 5:.0f} s for {left} samples from step 9, at 5.0 samples/s" in said
    assert "the median of 3 measurements" in said
    assert "it ran on 2 ranks, and this is not scaled" in said


def test_all_refusals_are_listed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("data.text_column=txt", "--ranks=3")
    found = planned(capsys, data, tmp_path / "run", *more, code=2)
    assert any("batch.size=8 does not split evenly over 3 ranks" in r for r in found["refused"])
    assert any("txt" in r for r in found["refused"])
    assert main(["plan", *words(data, tmp_path / "run", 40), *more]) == 2
    assert "would be refused:\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "block", ["zero_optimization=3", "zero_optimization.offload_optimizer=cpu"]
)
def test_a_value_in_the_place_of_a_group_is_no_fault(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], block: str
) -> None:
    stops = 2 if block == "zero_optimization=3" else 0
    found = planned(capsys, data, tmp_path / "run", f"deepspeed.{block}", code=stops)
    assert all(one["host"] == 0 for one in found["memory"].values())


def test_the_directory_of_another_run_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainer.config import load
    from trainer.engine import directory

    config = load("metaclip2-tiny", words(data, tmp_path, 7)[1:])
    directory.record(config, ranks=1, parameters=1, digest="x")
    (why,) = planned(capsys, data, tmp_path, code=2)["refused"]
    assert "length.steps=7" in why and "length.steps=40" in why


def test_without_words_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 0
    assert "metaclip2-tiny" in capsys.readouterr().out
    assert main(["plan", "metaclip2-tiny"]) == 0
    shown = capsys.readouterr().out
    assert "model: {name: metaclip2, size: tiny}" in shown and "output" in shown
    assert main(["plan", "metaclip3"]) == 2
    assert "Did you mean 'metaclip2'?" in capsys.readouterr().err


def test_a_plan_needs_no_samples_beyond_the_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainer.sources.image_text import ImageText

    asked: list[int] = []
    batch = ImageText.batch

    def noted(self: ImageText, positions: Any) -> Any:
        asked.append(int(np.size(positions)))
        return batch(self, positions)

    monkeypatch.setattr(ImageText, "batch", noted)
    planned(capsys, data, tmp_path / "run")
    assert asked == [1]


def test_a_recipe_alone_is_listed_with_all_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {
        line.split()[0]: line
        for line in lines[lines.index("All settings; the recipe's own are above:") :]
        if line
    }
    assert "[{path, weight}, ...]" in found["data.mix"]
    assert "deviations of the loss" in found["faults.spike.loss"]
    assert {"model.init_from", "objective.rows", "branch.step", "checkpoint.milestones"} < set(
        found
    )
    assert "typing" not in " ".join(lines)


def test_a_checkpoint_takes_the_place_of_the_recipe_s_size() -> None:
    config = load("llama-tiny", ["model.init_from=somewhere", "data.path=x", "output=y"])
    assert config.model == {"name": "decoder", "init_from": "somewhere"}
