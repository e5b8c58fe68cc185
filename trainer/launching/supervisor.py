"""The ranks of one host: started together, logged each to its file, ended together.

torch's elastic agent and DeepSpeed's launcher were tried for this and do not meet three of its
limits. Both give the surviving ranks a fixed 30 s between SIGTERM and SIGKILL, DeepSpeed's one rank
after the other; a rank that waits in a collective with a signal handler of its own uses all of it.
Both leave the ranks running when they are killed themselves. And neither keeps one log a rank under
a fixed name: the agent writes a new folder an attempt and truncates, DeepSpeed stamps names with the
time. What they do besides (rendezvous of changing numbers of hosts) a run of fixed ranks does not use;
the environment of a rank is torchrun's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from schemas.errors import JobError
from trainer.engine.signals import STOPPING, deliberate
from trainer.launching.environment import host_environment, rank_environment
from trainer.launching.rank import PARENT

FAILED_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for the other ranks once one has failed."""

STOP_GRACE = 110.0
"""Seconds that ranks have to save and end when the user stops the run (Slurm's notice is 120 s)."""

SETTLE = 3.0
"""Seconds to wait for the cause when a rank has lost another one (a process closes its connections
before it has ended), or died of a stopping signal: who stops the whole job may reach it before us."""

STOPPED = frozenset(128 + number for number in STOPPING)
"""Exit codes of ranks that saved and ended as one of them was told to, by a stopping signal."""

_POLL = 0.02
RANK_COMMAND = (sys.executable, "-m", "trainer.launching.rank")


@dataclass(frozen=True)
class Failure:
    """A rank that ended by itself with an exit code other than 0 (negative: the signal)."""

    rank: int
    code: int
    log: str
    last_line: str

    def how(self) -> str:
        """``was killed by SIGKILL`` or ``ended with exit code 3``."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        return f"was killed by {signal.Signals(-self.code).name}"


@dataclass(frozen=True)
class Share:
    """What one host runs: ranks ``first`` to ``first + count`` of ``ranks``, fed ``text`` on stdin."""

    first: int
    count: int
    ranks: int
    master: tuple[str, int]
    logs: str
    text: str
    command: Sequence[str] = RANK_COMMAND
    environ: Mapping[str, str] = field(default_factory=dict)


def likelihood(code: int | None) -> int:
    """Order of likely causes: killed by a signal, then an error of its own, last a lost peer."""
    if code is not None and code < 0:
        return 0
    return 2 if code == JobError.exit_code else 1


def log_path(logs: str | Path, rank: int) -> Path:
    """Return OUTPUT/logs/rank-0000.log."""
    return Path(logs) / f"rank-{rank:04d}.log"


class Supervisor:
    """Runs a share of the ranks. Not for use from several threads, `stop` excepted."""

    def __init__(
        self,
        share: Share,
        show: Callable[[bytes], Any],
        failing: Callable[[Failure], Any] = lambda failure: None,
    ) -> None:
        self.share = share
        self.codes: dict[int, int] = {}
        self._show = show
        self._failing = failing
        self._abandoned = False
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._threads: list[threading.Thread] = []
        self._signals: list[tuple[float, int]] = []

    def stop(self, number: int) -> None:
        """Pass a signal on to every rank; a second one, or SIGKILL, ends them at once.

        Repeats within the grace of the first are the same stop. Safe in a handler and in a thread.
        """
        self._signals.append((time.monotonic(), number))

    @property
    def _asked(self) -> list[int]:
        return deliberate(self._signals)

    def abandon(self) -> None:
        """End every rank as after a failure: another host's rank failed, or the launcher is gone."""
        self._abandoned = True

    def run(self) -> Failure | None:
        """Start the ranks and wait; returns who failed first, if anyone did. ``codes`` has the rest.

        ``failing`` hears of the failure before the other ranks are ended. Whatever happens, no
        process of a rank is left when this returns.
        """
        try:
            self._start()
            return self._watch()
        finally:
            self._signal_all(signal.SIGKILL)
            for rank, process in self._processes.items():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    # A process in an uninterruptible wait of the kernel stays.
                    self.codes[rank] = process.wait(5)
            for thread in self._threads:
                thread.join(2)

    def _start(self) -> None:
        share = self.share
        os.makedirs(share.logs, exist_ok=True)
        shared = {
            **os.environ,
            **host_environment(share.count, share.master[0], os.environ),
            **share.environ,
            PARENT: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
        }
        for local in range(share.count):
            rank = share.first + local
            own = rank_environment(rank, share.ranks, local, share.count, share.master)
            with open(log_path(share.logs, rank), "ab") as log:
                when = time.strftime("%Y-%m-%d %H:%M:%S %z")
                log.write(
                    f"== {when}: rank {rank} of {share.ranks}, {os.uname().nodename}\n".encode()
                )
                log.flush()
                process = subprocess.Popen(
                    share.command,
                    env={**shared, **own},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if rank == 0 else log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on
                )
            self._processes[rank] = process
            if process.stdout is not None:
                copier = threading.Thread(
                    target=self._copy, args=(rank, process.stdout), daemon=True
                )
                copier.start()
                self._threads.append(copier)
        for process in self._processes.values():
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(share.text.encode())

    def _copy(self, rank: int, pipe: IO[bytes]) -> None:
        """Rank 0's output to its log and to the terminal."""
        with pipe, open(log_path(self.share.logs, rank), "ab", buffering=0) as log:
            while data := os.read(pipe.fileno(), 1 << 16):
                log.write(data)
                with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
                    self._show(data)

    def _watch(self) -> Failure | None:
        passed = 0
        deadline = float("inf")
        while True:
            running = [r for r, process in self._processes.items() if process.poll() is None]
            failed = self._settled()
            if failed or not running or self._abandoned or time.monotonic() > deadline:
                break
            if len(asked := self._asked) > passed:
                number = asked[passed]
                passed += 1
                self._signal_all(number if passed == 1 else signal.SIGKILL)
                deadline = min(deadline, time.monotonic() + STOP_GRACE)
            elif passed and any(-(p.returncode or 0) in STOPPING for p in self._processes.values()):
                # The others wait for it and cannot save either.
                deadline = min(deadline, time.monotonic() + FAILED_GRACE)
            elif any(process.returncode in STOPPED for process in self._processes.values()):
                deadline = min(deadline, time.monotonic() + STOP_GRACE)  # a rank was told to stop
            time.sleep(_POLL)
        failure = self._failure(failed[0]) if failed else None
        if failure is not None:
            self._failing(failure)
        if failed or self._abandoned:
            self._end(FAILED_GRACE)
        return failure

    def _settled(self) -> list[int]:
        """The ranks that failed, once the cause is known or `SETTLE` is over."""
        until = time.monotonic() + SETTLE
        while (failed := self._failed()) and time.monotonic() < until:
            code = self._processes[failed[0]].returncode
            if code != JobError.exit_code and -code not in STOPPING:
                break
            time.sleep(_POLL)
        return failed

    def _failed(self) -> list[int]:
        """Ranks that failed, the likeliest cause first. Who died of a signal that all were to stop by,
        before it could save, has not failed, and nor have those that lost it."""
        codes = {rank: process.poll() for rank, process in self._processes.items()}
        fine = {0, *STOPPED}
        if asked := self._asked:
            died = {-number for number in STOPPING}
            fine |= died
            if died & set(codes.values()):
                fine.add(JobError.exit_code)
        if len(asked) > 1:
            fine |= {-signal.SIGKILL, JobError.exit_code}
        failed = [rank for rank, code in codes.items() if code is not None and code not in fine]
        return sorted(failed, key=lambda rank: (likelihood(codes[rank]), rank))

    def _end(self, grace: float) -> None:
        self._signal_all(signal.SIGTERM)
        until = time.monotonic() + grace
        while time.monotonic() < until and any(p.poll() is None for p in self._processes.values()):
            time.sleep(_POLL)

    def _signal_all(self, number: int) -> None:
        """To each rank's whole process group: helpers that a rank started end with it."""
        for process in self._processes.values():
            if number == signal.SIGKILL or process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)

    def _failure(self, rank: int) -> Failure:
        for thread in self._threads:
            thread.join(1)
        path = log_path(self.share.logs, rank)
        code = self._processes[rank].returncode
        return Failure(rank, code, str(path), last_line(path))


def last_line(path: Path) -> str:
    """The last line of a log that says something, at most 2,000 characters."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("== ")]
    return lines[-1][:2000] if lines else ""
