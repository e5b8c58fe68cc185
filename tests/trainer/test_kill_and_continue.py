"""A slice of the acceptance program, and that it finds what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer import kill_and_continue as program
from tests.trainer.evaluation.runs import curated


@pytest.mark.slow
def test_a_run_killed_at_zero_3_with_two_ranks_goes_on_with_one(tmp_path: Path) -> None:
    faults: list[str] = []
    runs = program.Runs(tmp_path, curated(tmp_path / "curated", 150))
    figures = program.adamw(runs, 3, faults, kills=1, continued=(1,))
    assert faults == []
    assert figures["kills"] == figures["restores"] == 1
    assert 0 < figures["killed_at_epoch"][0] % 1 < 1
    assert figures["loss_1_ranks"] <= program.LOSS
    _tampered(tmp_path, faults)


def _tampered(tmp_path: Path, faults: list[str]) -> None:
    """Change what was recorded: each change is a fault."""
    names = ["record-0", "record-1", "record-3"]
    whole, killed, life = (_life(tmp_path / name) for name in names)
    kept = tmp_path / "kept-2"

    def found() -> list[str]:
        faults.clear()
        program.check_order(whole, [killed, life], "x", faults)
        program.check_restore(life, kept, 1, "x", faults)
        return faults

    assert found() == []
    path = life.record / "0.jsonl"
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    at = next(i for i, line in enumerate(lines) if "step" in line)

    def changed(number: int, **values: Any) -> list[str]:
        some = [{**line, **values} if i == number else line for i, line in enumerate(lines)]
        path.write_text("".join(json.dumps(line) + "\n" for line in some))
        return list(found())

    step = lines[at]["step"]
    swapped = [lines[at]["samples"][1], lines[at]["samples"][0], *lines[at]["samples"][2:]]
    assert changed(at, samples=swapped) == [f"x: step {step} took other samples"]
    late = changed(at, step=99)
    assert late[0] == "x: step 99 took other samples" and late[1].endswith("missing or repeated")
    assert late[2] == f"x: rank 0 continued at step 99, not {step}"
    first = next(i for i, line in enumerate(lines) if "restored" in line)
    tensors = lines[first]["tensors"]
    name = "logit_scale"
    odd = {**tensors, name: {**tensors[name], "exp_avg": "0"}}
    assert changed(first, tensors=odd) == [
        "x: exp_avg of logit_scale is not that of the checkpoint"
    ]
    assert changed(first, steps=[1.0])[0].startswith("x: rank 0 has optimizer steps [1.0]")
    used = next(i for i, line in enumerate(lines) if "forward" in line)
    stale = {**lines[used]["forward"], name: "0"}
    assert changed(used, forward=stale) == ["x: the forward of rank 0 uses another logit_scale"]


def _life(record: Path) -> program.Life:
    return program.Life(record, record, None)  # type: ignore[arg-type]
