"""Two ranks of one run stop together, whichever of them is told to or meets a fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, free_port
from tests.trainer.engine import tiny
from tests.trainer.engine.test_run import lines, losses
from trainer.engine.run import train
from trainer.protocols import Place


def run_two(settings: dict[str, Any]) -> list[tuple[int, str]]:
    """(exit code, stderr) of both ranks."""
    return run_module("tests.trainer.engine.train_rank", json.dumps(settings))


def run_module(name: str, *words: str, seconds: float = 120) -> list[tuple[int, str]]:
    """(exit code, stderr) of a module as two ranks."""
    port = str(free_port())
    processes = []
    for rank in range(2):
        environment = os.environ | {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", name, *words],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    found = [process.communicate(timeout=seconds)[1] for process in processes]
    return [(p.returncode, text) for p, text in zip(processes, found, strict=True)]


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_and_one_rank_continues(tmp_path: Path) -> None:
    tiny.register()
    settings = {"length": {"steps": 8}, "zero": 1, "batch": {"size": 16, "micro": 4}}
    assert train(tiny.run_config(tmp_path / "whole", **settings), Place()) == 0
    output = tmp_path / "run"
    # Rank 1 reads sample 78 in the fifth step; rank 0 never does.
    stopped = run_two({**settings, "output": str(output), "data": {"name": "tiny", "stop_at": 78}})
    assert [code for code, _ in stopped] == [143, 143], stopped
    assert "stopped at step 5 of 8" in stopped[0][1]
    assert not any("Traceback" in text for _, text in stopped)
    again = {**settings, "data": {"name": "tiny", "stop_at": 78}, "zero": 3}
    assert train(tiny.run_config(output, **again), Place()) == 0
    assert losses(output) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    assert [line["ranks"] for line in lines(output) if "ranks" in line] == [2, 1]


@pytest.mark.slow
@pytest.mark.parametrize(("long", "stopped"), [(-1.0, 3), (5.0, 4)])
def test_after_a_long_step_ranks_ask_for_signals_that_came_in_it(
    tmp_path: Path, long: float, stopped: int
) -> None:
    """It comes in the backward pass of the third step, after that step's numbers were summed; a short
    step is not worth a collective of its own."""
    objective = {"name": "tiny_faulty", "told": [2 * 16 + 15]}
    settings = {"output": str(tmp_path), "objective": objective, "long": long}
    ended = run_two({**settings, "length": {"steps": 6}})
    assert [code for code, _ in ended] == [143, 143], ended
    assert max(losses(tmp_path)) == stopped
    assert (tmp_path / "checkpoints" / "latest").read_text() == f"step-{stopped:08}\n"


@pytest.mark.slow
def test_a_bad_sample_of_one_rank_ends_both_with_its_name(tmp_path: Path) -> None:
    settings = {"output": str(tmp_path), "data": {"name": "tiny", "bad": 46}, "log_every": 2}
    ended = run_two(settings)
    assert [code for code, _ in ended] == [1, 1], ended
    for _, text in ended:
        assert "step 3: the loss is not finite" in text and "Traceback" not in text
        assert "46 (pair_id 002e)" in text
    record = json.loads((tmp_path / "faults/step-00000003.json").read_text())
    assert record["positions"] == [46]


@pytest.mark.slow
def test_a_directory_of_another_run_is_refused_by_both(tmp_path: Path) -> None:
    tiny.register()
    assert train(tiny.run_config(tmp_path), Place()) == 0
    refused = run_two({"output": str(tmp_path), "seed": 4})
    assert [code for code, _ in refused] == [4, 4], refused
    assert all("seed=0, and this one has seed=4" in text for _, text in refused)
