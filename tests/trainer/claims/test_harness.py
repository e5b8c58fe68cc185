"""Tasks run in the order of their needs, once each, and end what they started."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.errors import JobError, UsageError
from tests.support import ROOT
from tests.trainer.claims import fake_claim
from tests.trainer.claims.fake_claim import Settings
from trainer.claims import harness

EVERY = ["data", "high-0", "low-0", "high-1", "low-1"]


def asked(work: Path, **files: str) -> Path:
    """Make files that tell tasks what to do; returns the claim's folder."""
    folder = harness.folder_of(work, "fake")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", "-")).write_text(text)
    return folder


def test_tasks_run_side_by_side_after_what_they_need(tmp_path: Path) -> None:
    # Each waits for the other to begin: one lane would fail.
    folder = asked(tmp_path, wait_high_0="low-0", wait_low_0="high-0")
    results = harness.run_tasks("fake", tmp_path, Settings(), lanes=2)
    assert list(results) == EVERY
    assert results["high-1"]["score"] == 0.625 and results["high-1"]["seconds"] >= 0
    seen = fake_claim.events(folder)
    assert seen[:2] == ["begin data", "end data"]
    assert sorted(seen) == sorted(f"{what} {task}" for task in EVERY for what in ("begin", "end"))
    running, most = 0, 0
    for line in seen:
        running += 1 if line.startswith("begin") else -1
        most = max(most, running)
    assert most == 2


def test_a_failed_task_names_its_log_and_finished_ones_are_not_repeated(tmp_path: Path) -> None:
    folder = asked(tmp_path, fail_low_0="")
    with pytest.raises(
        JobError, match=r"low-0: .*the low-0 broke.*its log is .*low-0\.txt"
    ) as said:
        harness.run_tasks("fake", tmp_path, Settings(), lanes=1)
    log = Path(str(said.value).rpartition("its log is ")[2].rstrip(")"))
    assert "the low-0 broke" in log.read_text() and "Traceback" not in log.read_text()
    done = fake_claim.events(folder)
    assert "end high-0" in done
    (folder / "fail-low-0").unlink()
    results = harness.run_tasks("fake", tmp_path, Settings(), lanes=1)
    assert list(results) == EVERY
    again = fake_claim.events(folder)[len(done) :]
    assert again == [
        f"{what} {t}" for t in ("low-0", "high-1", "low-1") for what in ("begin", "end")
    ]


def test_a_failure_ends_the_other_tasks_and_what_they_started(tmp_path: Path) -> None:
    folder = asked(tmp_path, fail_low_0="", wait_low_0="high-0", sleep_high_0="")
    with pytest.raises(JobError, match="the low-0 broke"):
        harness.run_tasks("fake", tmp_path, Settings(), lanes=2)
    assert "end high-0" in fake_claim.events(folder)  # its `finally` ran
    assert not harness.result_of(tmp_path, "fake", "high-0").exists()


def test_a_stopped_run_ends_its_tasks(tmp_path: Path) -> None:
    work = tmp_path / harness.version("fake", Settings())
    folder = asked(work, sleep_high_0="")
    words = (sys.executable, "-m", "trainer", "claims", "run", "fake", "--lanes", "1")
    command = [*words, "--work", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while not (folder / "begun-high-0").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert fake_claim.events(folder)[-1] == "end high-0"


def test_some_tasks_bring_what_they_need(tmp_path: Path) -> None:
    results = harness.run_tasks("fake", tmp_path, Settings(), 1, ["low-1"])
    assert list(results) == ["data", "low-1"]
    with pytest.raises(UsageError, match=r"no task 'low-7'\. Did you mean 'low-"):
        harness.run_tasks("fake", tmp_path, Settings(), 1, ["low-7"])
    with pytest.raises(UsageError, match="no task 'other'"):
        harness.run_one("fake", "other", tmp_path, Settings())


def test_no_lane_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--lanes 0: give 1 or more"):
        harness.run_tasks("fake", tmp_path, Settings(), lanes=0)


def test_work_is_named_by_settings_and_sources(checkout: Path) -> None:
    one = harness.version("fake", Settings())
    assert one == harness.version("fake", Settings(seeds=2))
    assert one != harness.version("fake", Settings(seeds=3))
    (checkout / "fake.py").write_text("x = 2\n")
    assert one != harness.version("fake", Settings())


def test_a_result_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(f"no room for {target}")

    asked(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="no room"):
            harness.run_one("fake", "data", tmp_path, Settings())
    assert not harness.result_of(tmp_path, "fake", "data").exists()
    harness.run_one("fake", "data", tmp_path, Settings())
    assert "seconds" in json.loads(harness.result_of(tmp_path, "fake", "data").read_text())
