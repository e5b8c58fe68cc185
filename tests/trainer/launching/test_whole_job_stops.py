"""A signal that reaches every process of a job (systemd, Slurm, a process group) is one stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.trainer.engine.test_run import lines, losses
from tests.trainer.launching.making import start, wait_for
from tests.trainer.launching.test_remote import shell
from tests.trainer.launching.test_supervisor import until
from tests.trainer.launching.tiny_job import STARTING
from trainer.engine import signals

STEPS = 60


def family(root: int) -> list[int]:
    """The process and all that it has started, the youngest first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[::-1]


def tell_all(root: int, number: int = signal.SIGTERM) -> None:
    """Signal all processes of a job, as the end of a control group does."""
    for pid in family(root):
        os.kill(pid, number)


def begin(output: Path, *more: str, **environ: str) -> subprocess.Popen[str]:
    """The tiny job."""
    command = [sys.executable, "-m", "tests.trainer.launching.tiny_job", str(output), str(STEPS)]
    found = {**os.environ, "OMP_NUM_THREADS": "1", **environ}
    return start([*command, *more], cwd=ROOT, env=found)


def stepped(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait for a line of that step."""
    file = output / "metrics.jsonl"
    wait_for(lambda: file.exists() and max(losses(output), default=0) >= count, 120, process)


def saved(output: Path) -> str:
    return (output / "checkpoints" / "latest").read_text().strip()


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2])
def test_all_ranks_save_one_step_and_the_same_command_continues(tmp_path: Path, hosts: int) -> None:
    output = tmp_path / "run"
    more = ("2", *([shell(tmp_path)] if hosts == 2 else []))
    job = begin(output, *more)
    stepped(output, 3, job)
    tell_all(job.pid)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 143, said
    assert "trainer: stopped by SIGTERM; the same command continues\n" in said
    assert "killed" not in said and "starting again" not in said
    last = max(losses(output))
    assert saved(output) == f"step-{last:08}"
    assert f"stopped at step {last} of {STEPS}, saved" in said

    again = begin(output, *more)
    stepped(output, last + 2, again)
    os.kill(again.pid, signal.SIGTERM)
    said, _ = again.communicate(timeout=60)
    assert again.returncode == 143, said
    assert list(losses(output)) == list(range(1, max(losses(output)) + 1))
    assert [line["step"] for line in lines(output) if line.get("event") == "continued"] == [last]


@pytest.mark.slow
def test_a_deliberate_second_signal_ends_ranks_at_once_and_is_told(tmp_path: Path) -> None:
    """The steps are so slow that none ends in time."""
    output = tmp_path / "run"
    job = begin(output, "2")
    stepped(output, 1, job)
    ranks = family(job.pid)[:-1]
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)  # as in a step that takes minutes
    os.kill(job.pid, signal.SIGINT)
    os.kill(job.pid, signal.SIGINT)  # a wrapper passed it on: the same stop
    time.sleep(signals.GRACE + 0.3)
    assert job.poll() is None
    begun = time.monotonic()
    os.kill(job.pid, signal.SIGINT)
    said, _ = job.communicate(timeout=60)
    assert time.monotonic() - begun < 5
    assert job.returncode == 130, said
    assert "2 of 2 ranks were killed by SIGKILL without saving" in said
    assert said.endswith("trainer: stopped; the same command continues\n")


@pytest.mark.parametrize("whole", [True, False])
def test_ranks_that_die_of_the_signal_are_told_as_unsaved(tmp_path: Path, whole: bool) -> None:
    """It comes while they start, before they hear signals; and no restart undoes the stop."""
    job = begin(tmp_path / "run", "2", **{STARTING: str(tmp_path)})
    until(lambda: all((tmp_path / f"up-{rank}").exists() for rank in range(2)), 60)
    if whole:
        tell_all(job.pid)
    else:
        job.terminate()
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 143, said
    assert (
        "trainer: stopped by SIGTERM; 2 of 2 ranks were killed by SIGTERM without saving; the same"
        " command continues from the last checkpoint, or begins anew if there is none\n"
    ) in said
    assert "starting again" not in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_process_takes_repeats_as_one_stop(tmp_path: Path, number: int) -> None:
    output = tmp_path / "run"
    job = begin(output)
    stepped(output, 2, job)
    job.send_signal(number)
    time.sleep(0.02)  # two pending ones are one
    job.send_signal(number)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 128 + number, said
    assert saved(output) == f"step-{max(losses(output)):08}"
    assert f"stopped at step {max(losses(output))} of {STEPS}, saved" in said
