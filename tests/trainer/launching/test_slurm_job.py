"""A job on a real Slurm of two nodes: a rank is killed, and the job ends with its name and log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.launching import slurm_job
from tests.trainer.launching.killed_runs import KINDS


@pytest.mark.slow
def test_a_killed_rank_ends_the_job(tmp_path: Path) -> None:
    found = slurm_job.run(tmp_path, KINDS["clip"], to_the_end=False)
    killed = found["killed"]
    assert killed["exit_code"] == 7
    assert killed["seconds"] < 30
    assert killed["processes_left"] == 0
    assert killed["names_rank"] and killed["names_log"], killed["error"]
    assert found["logs"] == ["rank-0000.log", "rank-0001.log"]
