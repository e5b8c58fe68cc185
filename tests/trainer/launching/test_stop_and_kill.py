"""Real ranks are stopped, killed and started again, within the times promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.launching import stop_and_kill as program

pytestmark = pytest.mark.slow


def test_a_stopped_rank_stops_all_and_a_killed_one_ends_all(tmp_path: Path) -> None:
    run = program.Run(tmp_path)
    stopped = program.stop_one(run)
    assert stopped.pop("seconds") <= program.STOP_SECONDS
    assert stopped == {"exit_code": 143, "same_step": True, "says_why": True, "tracebacks": 0}
    killed = program.kill_one(run)
    assert killed.pop("seconds") <= program.KILL_SECONDS
    assert killed == {"exit_code": 7, "names_rank_and_log": True}
    again = program.restart(run)
    assert again == {
        "exit_code": 0,
        "restarts": 1,
        "continued_from_a_checkpoint": True,
        "finished_at": program.STEPS,
    }
