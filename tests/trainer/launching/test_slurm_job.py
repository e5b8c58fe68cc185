"""A job on a real Slurm of two nodes: a rank is killed, and the job ends with its name and log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.trainer.launching.making import pairs, rank_process, words
from tests.trainer.launching.slurm_cluster import ask, cluster
from tests.trainer.launching.two_hosts import last_step


@pytest.mark.slow
def test_a_killed_rank_ends_the_job(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with cluster(tmp_path) as environ:
        environ = {**environ, "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}"}
        done = subprocess.run(
            [
                *(ROOT / "deploy/slurm/submit.sh", "--hosts", "2", "--chdir", tmp_path),
                *words(pairs(tmp_path / "pairs"), output, 5000),
            ],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        job = done.stdout.split()[-1]
        deadline = time.monotonic() + 240
        log = tmp_path / f"headrace-{job}.log"
        while last_step(output) < 3:
            alive = ask(environ, "squeue", "-h", "-j", job)
            assert alive and time.monotonic() < deadline, log.exists() and log.read_text()
            time.sleep(0.2)
        victim = rank_process(1, str(output))
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while ask(environ, "squeue", "-h", "-j", job):
            assert time.monotonic() - killed < 30
            time.sleep(0.1)
        assert "ExitCode=7:0" in ask(environ, "scontrol", "show", "job", job)
    error = log.read_text().splitlines()[-1]
    assert "rank 1 on host n2 was killed by SIGKILL" in error
    assert str(output / "logs" / "rank-0001.log") in error
    assert (output / "logs" / "rank-0001.log").exists()
