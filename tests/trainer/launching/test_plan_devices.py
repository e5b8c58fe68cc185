"""Predictions for accelerators, and beside published runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.launching.making import pairs, planned, words
from trainer.cli import main
from trainer.launching import stages


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs(tmp_path_factory.mktemp("plan") / "pairs")


def test_a_device_gives_the_time_of_a_step(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parts add up; a device of more bandwidth and as many operations is faster by that part only."""
    h100, h200, b200 = (
        planned(capsys, data, tmp_path / "run", "--ranks=8", f"--device={name}")["time"]
        for name in ("h100", "h200", "b200")
    )
    parts = ("matmul", "attention", "memory", "exposed")
    assert h100["step"] == pytest.approx(sum(h100[part] for part in parts))
    assert h100["samples_per_s"] == pytest.approx(8 / h100["step"])
    assert h200["matmul"] == h100["matmul"] and h200["memory"] < h100["memory"]
    assert h100["matmul"] / b200["matmul"] == pytest.approx(2250 / 989.4)
    far = planned(capsys, data, tmp_path / "run", "--ranks=8", "--hosts=8", "--device=h100")
    assert far["time"]["communication"] == pytest.approx(h100["communication"] * 450 / 50)
    assert main(["plan", *words(data, tmp_path / "run", 40), "--ranks=8", "--device=h100"]) == 0
    said = capsys.readouterr().out
    assert "time on 8 h100, a prediction:" in said and "Assumed, not measured: 70%" in said


def test_devices_and_hosts_that_are_not_there_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["plan", *words(data, tmp_path / "run", 40)]
    for more, said in (
        (["--device=h101"], "--device h101: unknown. Did you mean 'h100'?"),
        (["--ranks=4", "--hosts=3"], "--hosts 3: 4 ranks do not spread evenly"),
    ):
        assert main([*given, *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["plan", "metaclip2-tiny", "--published"]) == 2
    assert "leave the recipe" in capsys.readouterr().err


def test_communication_is_that_of_the_stages() -> None:
    """A ring of n ranks sends (n - 1) / n of the bytes in each of its collectives."""
    from trainer.launching.devices import traffic_of_stage

    of = {stage: traffic_of_stage(1000, stage, 4, 2, 4, 3) for stage in stages.STAGES}
    assert of == {
        0: 750 * (4 + 4),  # reduce-scatter and all-gather of fp32 gradients
        1: 750 * (4 + 2),  # reduce-scatter of gradients, all-gather of bf16 weights
        2: 750 * (3 * 4 + 2),  # gradients of each of 3 micro-batches
        3: 750 * 3 * (2 + 2 + 4),  # weights forward and backward, gradients
    }
    assert traffic_of_stage(1000, 3, 1, 2, 4, 3) == 0


@pytest.mark.slow
def test_published_runs_are_predicted_with_their_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--published", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert runs[0]["memory_published"] == 17.5e9 and runs[0]["tokens_per_s_published"] == 54.3e3
    assert runs[0]["parameters"] == 876_553_728, "as its table 8 has it"
    assert runs[1]["parameters"] == 8_030_261_248, "as Llama 3.1 8B is published"
    for run in runs:
        for key in ("memory", "tokens_per_s"):
            error = run[key] / run[f"{key}_published"] - 1
            name = "memory_error" if key == "memory" else "rate_error"
            assert run[name] == pytest.approx(error, abs=1e-3)
            assert abs(error) < 0.6
