"""Stopped, killed, and left alone: one message, no traceback, and the same command finishes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dataflows.cli import main
from schemas.dataset import open_dataset
from tests.dataflows.conftest import RECORDS
from tests.support import ROOT

pytestmark = pytest.mark.slow

STAGES = ("records", "pool", "matches", "counts", "sample", "balance", "matched", "curated")
WAIT = 120.0
INTERRUPTED = (130, -signal.SIGINT)
"""Exit codes after Ctrl-C. Python may end by the signal itself, which every shell shows as 130."""


class Command:
    """`dataflows run` of the small run in a session of its own, as a terminal starts it."""

    def __init__(self, metadata: Path, output: Path, workers: int) -> None:
        words = ("input=generated", f"pool.records={RECORDS}", "pool.unit=800", "buckets=3")
        self.words = [
            *(sys.executable, "-m", "dataflows", "run", "metaclip2", *words, "p=0.06"),
            *(f"metadata={metadata}", f"output={output}", "--workers", str(workers)),
        ]
        self.output = output
        self.log = output.with_suffix(".txt")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.words,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A shell that starts the tests in the background makes them ignore Ctrl-C.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT
        while not what():
            assert self.process.poll() is None, f"ended too early: {self.said}"
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def begins(self, stage: str) -> None:
        self.wait_for(lambda: f"] {stage}: not committed yet" in self.said)

    def workers(self, count: int) -> list[int]:
        # Started from threads as well as from the main one: each thread has children of its own.
        found: set[int] = set()

        def enough() -> bool:
            found.update(running(self.process.pid))
            return len(found) >= count

        self.wait_for(enough)
        return sorted(found)

    def end(self, seconds: float = WAIT) -> int:
        return self.process.wait(seconds)

    def finish(self) -> None:
        """The same command, to its end; with one worker, which starts sooner."""
        done = subprocess.run(
            [*self.words[:-1], "1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def running(parent: int) -> Iterator[int]:
    """The live worker processes of a command."""
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                if b"dataflows.engine.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    yield int(child)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


Start = Callable[[int, str], Command]


@pytest.fixture
def start(small_metadata: Path, baseline: Path, tmp_path: Path) -> Iterator[Start]:
    """``start(workers, stage)``: a command that has come to a stage."""
    started: list[Command] = []

    def begin(workers: int, stage: str) -> Command:
        output = tmp_path / "out"
        if stage == "matches":
            for name in ("records", "pool", "pool.dead_letters", "automata"):
                shutil.copytree(baseline / name, output / name)
        started.append(Command(small_metadata, output, workers))
        started[-1].begins(stage)
        return started[-1]

    yield begin
    for command in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)
        command.process.wait()


def same(output: Path, baseline: Path) -> bool:
    return all(
        open_dataset(output / name).manifest.digest == open_dataset(baseline / name).manifest.digest
        for name in STAGES
    )


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


@pytest.mark.parametrize(
    ("workers", "stage"), [(1, "records"), (1, "matches"), (2, "records"), (2, "matches")]
)
def test_ctrl_c_stops_with_one_line_and_the_same_command_finishes(
    start: Start, baseline: Path, workers: int, stage: str
) -> None:
    command = start(workers, stage)
    if workers > 1:
        command.workers(workers)
    os.killpg(command.process.pid, signal.SIGINT)  # as the terminal does: to the whole group
    assert command.end(30) in INTERRUPTED
    assert command.said.count("dataflows: stopped; the same command continues") == 1
    assert "Traceback" not in command.said
    assert not (command.output / "curated" / "manifest.json").exists()
    if stage == "matches":
        command.finish()
        assert same(command.output, baseline)


@needs_proc
def test_a_second_ctrl_c_does_not_hang(start: Start) -> None:
    command = start(2, "records")
    workers = command.workers(2)
    for _ in range(3):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGINT)
        time.sleep(0.2)
    assert command.end(30) in INTERRUPTED
    assert "Traceback" not in command.said
    assert gone(workers, 10)


@needs_proc
def test_a_killed_worker_ends_the_job_with_a_message(start: Start, baseline: Path) -> None:
    command = start(2, "matches")
    workers = command.workers(2)
    os.kill(workers[0], signal.SIGKILL)
    assert command.end(60) == 7
    last = command.said.strip().splitlines()[-1]
    assert last.startswith("dataflows: error: matches: a worker process ended with SIGKILL")
    assert "the same command continues" in last
    assert "Traceback" not in command.said
    assert gone(workers, 10)
    command.finish()
    assert same(command.output, baseline)


@needs_proc
def test_workers_end_with_a_command_that_is_killed(start: Start) -> None:
    command = start(2, "records")
    workers = command.workers(2)
    command.process.kill()
    command.end()
    assert gone(workers, 10)


def test_a_worker_starts_from_a_path_with_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell between the command and its workers."""
    place = tmp_path / "a place; with 'quotes'"
    place.mkdir()
    python = place / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    source = place / "texts.jsonl"
    source.write_text('{"url": "http://host.example/1.jpg", "text": "a dog"}\n', encoding="utf-8")
    words = [f"input={source}", f"output={place / 'out'}", "--workers", "2"]
    assert main(["run", "ingest", *words]) == 0
    assert len(open_dataset(place / "out" / "records")) == 1
