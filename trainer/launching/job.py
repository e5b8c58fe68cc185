"""A run of several ranks: started, watched, told of, and started again if asked."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.errors import JobError, UsageError
from trainer.config import RunConfig
from trainer.engine.directory import COMMAND, command_line, output_of
from trainer.engine.signals import Signals
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
    at once (not within `signals.GRACE` of the first: that is the same stop). A failed run is started
    again up to `restarts` times, from its last checkpoint, unless it was told to stop.
    Raises JobError naming the rank that failed, how, and its log.
    """
    received: list[int] = []
    for attempt in range(restarts + 1):
        try:
            return _attempt(config, layout, command, received)
        except JobError as error:
            if attempt == restarts or received or error.exit_code in _USER_ERRORS:
                raise
            print(f"trainer: {error}", file=sys.stderr)
            print(f"trainer: starting again ({attempt + 1} of {restarts})", file=sys.stderr)
    raise AssertionError("the loop returns or raises")


def _attempt(config: RunConfig, layout: Layout, command: Sequence[str], received: list[int]) -> int:
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
        with _passing_on(runner, received):
            failure = runner.run()
        lost = None if failure is None else (failure, layout.hosts[layout.index].name)
    else:
        runner = Remotes(layout.hosts, layout.rsh, _show, layout.port)
        with _passing_on(runner, received):
            lost = runner.run(share, output)
    if lost is not None:
        raise _told(*lost, several=len(layout.hosts) > 1)
    ours = layout.hosts if layout.rsh is not None else (layout.hosts[layout.index],)
    ranks = [host.first + local for host in ours for local in range(host.ranks)]
    return _stopped(received, {rank: runner.codes.get(rank) for rank in ranks})


def _stopped(received: Sequence[int], codes: Mapping[int, int | None]) -> int:
    """Tell of ranks that ended as they were told to, saved or not; returns the exit code. ``codes``:
    None for a rank whose end nobody saw."""
    if not any(code != 0 for code in codes.values()):
        return 0
    told = [code - 128 for code in codes.values() if code in STOPPED]
    died = [-code for code in codes.values() if code is not None and code < 0]
    number = (received or told or died or [signal.SIGTERM])[0]
    name = signal.Signals(number).name
    said = f"stopped by {name}" + ("" if received else ", which one of the ranks received")
    lost = _lost(codes)
    if received and number == signal.SIGINT:
        if lost:
            print(f"trainer: {lost}", file=sys.stderr)
        raise KeyboardInterrupt  # whose message is the same for every command
    print(f"trainer: {said}; {lost or 'the same command continues'}", file=sys.stderr)
    return 128 + number


def _lost(codes: Mapping[int, int | None]) -> str:
    """What a stop has cost: empty if every rank ended by itself."""
    killed = [code for code in codes.values() if code is None or code < 0]
    if not killed:
        return ""
    names = {signal.Signals(-code).name for code in killed if code is not None}
    by = f" by {' and '.join(sorted(names))}" if names else ""
    who = f"{len(killed)} of {len(codes)} ranks {'was' if len(killed) == 1 else 'were'} killed{by}"
    if 0 in codes.values():  # a rank ends so only when the last step is saved
        return f"all steps are saved, {who} after them; the same command does what is left"
    return (
        f"{who} without saving; the same command continues from the last checkpoint, or begins anew"
        " if there is none"
    )


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


def _passing_on(runner: Supervisor | Remotes, received: list[int]) -> Signals:
    """Signals that end a program go to the ranks while this is entered, and into ``received``. A
    second one is passed on as SIGKILL: the agents of hosts have clocks of their own for its grace."""

    def first(number: int) -> None:
        received.append(number)
        runner.stop(number)

    def again(number: int) -> None:
        received.append(number)
        runner.stop(signal.SIGKILL)

    return Signals(first, again)


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
