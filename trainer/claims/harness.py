"""Runs a claim's tasks, each in a process of its own, and keeps the result of each.

A task's result is a JSON file that is created once; the same command continues with the tasks that
have none. Tasks run side by side, one thread each, so a task's numbers do not depend on how many do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.command_line import suggest
from schemas.errors import JobError, UsageError
from schemas.records import sources_digest
from trainer.claims import claim
from trainer.claims.records import ROOT

_SAVING = 60.0
"""Seconds in which a task that was stopped by Ctrl-C may save."""


@dataclass(frozen=True)
class Task:
    """A piece of a claim's work: its name, and the tasks that must be done before."""

    name: str
    needs: tuple[str, ...] = ()


def version(name: str, settings: Any) -> str:
    """Name of the work of these settings and sources: results of others are never continued."""
    sources = sources_digest(claim(name).SOURCES, ROOT)
    words = json.dumps([settings.model_dump(), sources], sort_keys=True)
    return hashlib.blake2b(words.encode(), digest_size=6).hexdigest()


def folder_of(work: Path, name: str) -> Path:
    """Where a claim keeps what it makes."""
    return work / name


def result_of(work: Path, name: str, task: str) -> Path:
    """The file of a task's result."""
    return folder_of(work, name) / "results" / f"{task}.json"


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """While it lasts SIGTERM is an exception, so that who is stopped ends what he started."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_ending()
def run_tasks(
    name: str, work: Path, settings: Any, lanes: int, only: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Run the tasks that have no result yet, ``lanes`` at a time; returns the results by task.

    ``only``: these tasks and what they need. Raises UsageError for an unknown one, and JobError
    naming the log of a task that failed; what is finished stays.
    """
    if lanes < 1:
        raise UsageError(f"--lanes {lanes}: give 1 or more")
    tasks = _wanted(claim(name).tasks(settings), only)
    (folder_of(work, name) / "logs").mkdir(parents=True, exist_ok=True)
    waiting = [task for task in tasks if not result_of(work, name, task.name).exists()]
    done = {task.name for task in tasks} - {task.name for task in waiting}
    before = len(done)
    _say(f"{before} of {len(tasks)} tasks are done")
    running: dict[str, subprocess.Popen[bytes]] = {}
    begun = {"": time.monotonic()}
    try:
        while waiting or running:
            for task in [task for task in waiting if done.issuperset(task.needs)]:
                if len(running) < lanes:
                    waiting.remove(task)
                    running[task.name] = _start(name, task.name, work, settings)
                    begun[task.name] = time.monotonic()
            if ended := [task for task, process in running.items() if process.poll() is not None]:
                for task_name in ended:
                    if running.pop(task_name).returncode:
                        log = _log(work, name, task_name)
                        raise JobError(f"{task_name}: {_last(log)} (its log is {log})")
                    done.add(task_name)
                    seconds = time.monotonic() - begun[task_name]
                    spent = time.monotonic() - begun[""]
                    left = _left(spent, len(done) - before, len(tasks) - len(done))
                    _say(f"{len(done)}/{len(tasks)} {task_name}: {seconds:,.0f} s{left}")
            else:
                time.sleep(0.2)
    except KeyboardInterrupt:
        # A terminal's Ctrl-C has reached the tasks too; a second signal would cut their saving short.
        deadline = time.monotonic() + _SAVING
        for process in running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        raise
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return {
        task.name: json.loads(result_of(work, name, task.name).read_text(encoding="utf-8"))
        for task in tasks
    }


def _wanted(tasks: Sequence[Task], only: Sequence[str]) -> list[Task]:
    by_name = {task.name: task for task in tasks}
    if unknown := [name for name in only if name not in by_name]:
        raise UsageError(f"no task {unknown[0]!r}.{suggest(unknown[0], by_name)}")
    names, todo = set(), list(only) or list(by_name)
    while todo:
        name = todo.pop()
        names.add(name)
        todo += by_name[name].needs
    return [task for task in tasks if task.name in names]


@_ending()
def run_one(name: str, task: str, work: Path, settings: Any) -> None:
    """Do one task in this process and write its result. UsageError for an unknown one."""
    _wanted(claim(name).tasks(settings), [task])
    begun = time.monotonic()
    found = claim(name).work(task, folder_of(work, name), settings)
    path = result_of(work, name, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**found, "seconds": round(time.monotonic() - begun, 1)}, indent=1)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def _start(name: str, task: str, work: Path, settings: Any) -> subprocess.Popen[bytes]:
    words = [f"{key}={json.dumps(value)}" for key, value in settings.model_dump().items()]
    command = [*(sys.executable, "-m", "trainer", "claims", "task", name, task)]
    command += [*words, "--work", str(work)]
    with _log(work, name, task).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        )


def _log(work: Path, name: str, task: str) -> Path:
    return folder_of(work, name) / "logs" / f"{task}.txt"


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it ended without a word"


def _left(spent: float, made: int, left: int) -> str:
    return f", about {spent / made * left / 60:,.0f} min left" if left else ""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
