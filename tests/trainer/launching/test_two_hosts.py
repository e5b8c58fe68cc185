"""Two hosts: a rank is killed, and all end. (The module itself also continues the run.)"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support import give_up, require
from tests.trainer.launching import two_hosts
from tests.trainer.launching.killed_runs import KINDS


@pytest.mark.slow
def test_a_killed_rank_ends_both_hosts(tmp_path: Path) -> None:
    require("netns")
    if os.geteuid() or not shutil.which("ip"):
        give_up("netns", "namespaces with addresses need root and iproute2 (make system)")
    found = two_hosts.run(tmp_path, KINDS["language"], to_the_end=False)
    killed = found["killed"]
    assert killed["exit_code"] == 7
    assert killed["seconds"] < 30
    assert killed["processes_left"] == 0
    assert killed["names_rank"] and killed["names_log"], killed["error"]
    assert found["logs"] == ["rank-0000.log", "rank-0001.log"]
    assert found["master"] == [f"{two_hosts.SUBNET}.1"], "the first host's address"
    assert found["interface"] == ["hr0"]
    assert f"hr{os.getpid()}a" not in two_hosts.ip("netns", "list")
