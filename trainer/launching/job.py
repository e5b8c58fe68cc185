"""A run of several ranks: started, watched, told of, and started again if asked."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import FrameType

from schemas.errors import JobError, UsageError
from trainer.config import RunConfig
from trainer.engine.directory import COMMAND, command_line, output_of
from trainer.launching.environment import (
    LOOPBACK,
    free_port,
    host_environment,
    listen,
    rank_environment,
)
from trainer.launching.hosts import Host
from trainer.launching.remote import Remotes
from trainer.launching.supervisor import RANK_COMMAND, STOPPED, Failure, Share, Supervisor

RESOLVE_SECONDS = 300.0
"""How long the first host's name may take to be known: pods of a job do not start together."""

DEFAULT_PORT = 29500
_USER_ERRORS = range(1, 7)  # exit codes of schemas.errors that the same command meets again


@dataclass(frozen=True)
class Layout:
    """Where ranks run. ``rsh``: started from here on all hosts; without it this process runs the
    share of ``hosts[index]``, and the other hosts' processes are started by somebody else."""

    hosts: tuple[Host, ...]
    rsh: str | None = None
    index: int = 0
    master: str = LOOPBACK
    port: int | None = None

    @property
    def ranks(self) -> int:
        """All ranks of the run."""
        return sum(host.ranks for host in self.hosts)

    @property
    def alone(self) -> bool:
        """Whether one process of this host is the whole run."""
        return self.ranks == 1 and self.rsh is None

    def commands(self) -> Iterator[str]:
        """One line for each rank, as it could be typed on its host."""
        for host in self.hosts:
            for local in range(host.ranks):
                rank = host.first + local
                master = self.master if self.rsh is None else "<first host>"
                port = self.port or 0
                own = rank_environment(rank, self.ranks, local, host.ranks, (master, port))
                own["MASTER_PORT"] = str(port) if port else "<a free port>"
                if len(self.hosts) == 1:
                    own |= host_environment(host.ranks, LOOPBACK)
                words = " ".join(f"{name}={value}" for name, value in own.items())
                yield f"{host.name}: {words} {shlex.join(RANK_COMMAND)}"


def local_layout(ranks: int, port: int | None) -> Layout:
    """All ranks on this host."""
    return Layout((Host(socket.gethostname(), 0, ranks),), port=port)


def one_of_several(
    ranks: int, hosts: int, index: int, master: str, port: int | None = None
) -> Layout:
    """This host's share of a run whose hosts are started one by one, ``master`` being HOST[:PORT].

    Raises UsageError for an index beyond the hosts and ranks that do not divide.
    """
    if not 0 <= index < hosts:
        raise UsageError(f"--host-index {index}: with --hosts {hosts} give 0 to {hosts - 1}")
    if ranks % hosts:
        raise UsageError(f"--ranks {ranks} over --hosts {hosts}: give a multiple of {hosts}")
    name, _, given = master.partition(":")
    if not name or (given and not (given.isdigit() and 0 < int(given) < 65536)):
        raise UsageError(f"--master {master}: give HOST:PORT, as in trainer-0:{DEFAULT_PORT}")
    each = ranks // hosts
    every = tuple(Host(f"host {i}", i * each, each) for i in range(hosts))
    return Layout(every, None, index, name, int(given or port or DEFAULT_PORT))


def launch(
    config: RunConfig, layout: Layout, restarts: int = 0, command: Sequence[str] = RANK_COMMAND
) -> int:
    """Run all ranks of this launcher's hosts; returns the exit code.

    SIGINT, SIGTERM and SIGHUP are passed on; ranks then save and end, and a second signal ends them
    at once. A failed run is started again up to `restarts` times, from its last checkpoint.
    Raises JobError naming the rank that failed, how, and its log.
    """
    for attempt in range(restarts + 1):
        try:
            return _attempt(config, layout, command)
        except JobError as error:
            if attempt == restarts or error.exit_code in _USER_ERRORS:
                raise
            print(f"trainer: {error}", file=sys.stderr)
            print(f"trainer: starting again ({attempt + 1} of {restarts})", file=sys.stderr)
    raise AssertionError("the loop returns or raises")


def _attempt(config: RunConfig, layout: Layout, command: Sequence[str]) -> int:
    output = output_of(config)
    share = Share(
        first=layout.hosts[layout.index].first,
        count=layout.hosts[layout.index].ranks,
        ranks=layout.ranks,
        master=(layout.master, layout.port or 0),
        logs=str(output / "logs"),
        text=config.model_dump_json(),
        command=tuple(command),
        environ={COMMAND: command_line()},
    )
    where = ", ".join(f"{host.name} {host.ranks}" for host in layout.hosts)
    print(f"trainer: {layout.ranks} ranks ({where}), logs in {share.logs}", file=sys.stderr)
    runner: Supervisor | Remotes
    lost: tuple[Failure, str] | None
    if layout.rsh is None:
        runner = Supervisor(_with_master(share, layout), _show)
        with _passing_on(runner) as received:
            failure = runner.run()
        lost = None if failure is None else (failure, layout.hosts[layout.index].name)
    else:
        runner = Remotes(layout.hosts, layout.rsh, _show, layout.port)
        with _passing_on(runner) as received:
            lost = runner.run(share, output)
    if lost is not None:
        raise _told(*lost, several=len(layout.hosts) > 1)
    if received and any(runner.codes.values()):
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        return _stopped(received[0], "")
    if told := [rank for rank, code in runner.codes.items() if code in STOPPED]:
        return _stopped(runner.codes[told[0]] - 128, ", which one of the ranks received")
    return 0


def _stopped(number: int, how: str) -> int:
    """Tell of a run that saved and ended as it was told to; returns the exit code."""
    name = signal.Signals(number).name
    print(f"trainer: stopped by {name}{how}; the same command continues", file=sys.stderr)
    return 128 + number


def _with_master(share: Share, layout: Layout) -> Share:
    """The share with an address and port at which ranks meet."""
    if len(layout.hosts) == 1:
        if layout.port is not None:
            listen(layout.port, LOOPBACK).close()  # an error now, not in every rank's log
        return replace(share, master=(LOOPBACK, layout.port or free_port()))
    if layout.index == 0 and layout.port is not None:
        listen(layout.port).close()
    return replace(share, master=(_resolved(layout.master), share.master[1]))


def _resolved(name: str) -> str:
    deadline = time.monotonic() + RESOLVE_SECONDS
    while True:
        try:
            return socket.gethostbyname(name)
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"--master {name}: not known for {RESOLVE_SECONDS:g} s ({error.strerror}): give"
                    " the name or address of the first host"
                ) from None
            time.sleep(1)


@contextlib.contextmanager
def _passing_on(runner: Supervisor | Remotes) -> Iterator[list[int]]:
    """Signals that end a program go to the ranks while this lasts; yields those received."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        runner.stop(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _show(data: bytes) -> None:
    os.write(sys.stderr.fileno(), data)


def _told(failure: Failure, host: str, *, several: bool) -> JobError:
    """The error that names rank, cause and log."""
    at = f" on host {host}" if several else ""
    if not failure.log:
        error = JobError(
            f"host {host} was lost: {failure.last_line}; all other ranks were ended; the same"
            " command continues from the last checkpoint"
        )
    elif failure.code in _USER_ERRORS and "error: " in failure.last_line:
        _, _, why = failure.last_line.partition("error: ")
        error = JobError(f"{why} (rank {failure.rank}{at}, log {failure.log})")
        error.exit_code = failure.code
    else:
        memory = " (out of memory?)" if failure.code == -signal.SIGKILL else ""
        said = f", which ends with {failure.last_line!r}" if failure.code >= 0 else ""
        error = JobError(
            f"rank {failure.rank}{at} {failure.how()}{memory}; its log is {failure.log}{said}; all"
            " other ranks were ended; the same command continues from the last checkpoint"
        )
    return error
