"""Several hosts from one launcher: an agent on each through a remote shell, checks, then the ranks."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from schemas.errors import UsageError
from trainer.launching.agent import MARK
from trainer.launching.hosts import Host
from trainer.launching.supervisor import FAILED_GRACE, STOP_GRACE, Failure, Share, likelihood

SSH = "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=5 -o ServerAliveCountMax=2"
"""The default remote shell: asks for no password, and notices within 15 s that a host is gone."""

START_SECONDS = 60.0
_END_SECONDS = FAILED_GRACE + 10
_AGENT = ("-m", "trainer.launching.agent")


@dataclass
class _Remote:
    """One host's remote shell and what it has said."""

    host: Host
    command: list[str]
    process: subprocess.Popen[bytes]
    said: list[str] = field(default_factory=list)
    codes: dict[int, int] | None = None

    def send(self, **request: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.close()

    def last_words(self) -> str:
        words = " ".join(self.said[-1].split())[:300] if self.said else "it said nothing"
        return (
            f"`{shlex.join(self.command)}` ended with exit code {self.process.returncode}: {words}"
        )


def shell_command(rsh: str, host: str, words: Sequence[str]) -> list[str]:
    """The command that runs plain ``words`` on a host: ``{host}`` in ``rsh`` is replaced by its name,
    else the name is appended."""
    try:
        shell = shlex.split(rsh)
    except ValueError as error:
        raise UsageError(f"--rsh {rsh!r}: {error}") from None
    if not shell:
        raise UsageError("--rsh is empty: give a command such as ssh")
    placed = [word.replace("{host}", host) for word in shell]
    return [*placed, *([] if placed != shell else [host]), *words]


def agent_command(rsh: str, host: str) -> str:
    """The command that starts a host's agent, as it could be typed."""
    return shlex.join(shell_command(rsh, host, (sys.executable, *_AGENT)))


class Remotes:
    """Runs shares of ranks on hosts. `stop` may be called from a signal handler."""

    def __init__(
        self, hosts: Sequence[Host], rsh: str, show: Callable[[bytes], Any], port: int | None = None
    ) -> None:
        plain = re.fullmatch(r"[\w./+@%:=,-]+", sys.executable)
        if plain is None:
            raise UsageError(
                f"{sys.executable!r}: a remote shell would take this path of Python apart: use an"
                " environment whose path has no spaces or special characters"
            )
        self._hosts = hosts
        self._rsh = rsh
        self._show = show
        self._port = port
        self._events: queue.SimpleQueue[tuple[_Remote, Mapping[str, Any] | None]]
        self._events = queue.SimpleQueue()
        self._signals: list[int] = []
        self.codes: dict[int, int] = {}

    def stop(self, number: int) -> None:
        """Pass a signal on to every rank of every host."""
        self._signals.append(number)

    def run(self, share: Share, output: Path) -> tuple[Failure, str] | None:
        """Run all ranks; returns the failure and its host, or None. ``codes`` has each rank's end.

        Raises UsageError, before any rank starts, for a host that cannot be used.
        """
        remotes = [self._start(host) for host in self._hosts]
        try:
            address, port = self._prepare(remotes, output)
            for remote in remotes:
                part = replace(
                    share,
                    first=remote.host.first,
                    count=remote.host.ranks,
                    master=(address, port),
                )
                remote.send(do="run", share=asdict(part))
            return self._watch(remotes)
        finally:
            for remote in remotes:
                remote.hang_up()
            for remote in remotes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    remote.process.wait(_END_SECONDS)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(remote.process.pid, signal.SIGKILL)
                remote.process.wait()

    def _start(self, host: Host) -> _Remote:
        command = shell_command(self._rsh, host.name, (sys.executable, *_AGENT))
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise UsageError(f"--rsh {self._rsh!r}: {command[0]}: {error.strerror}") from None
        remote = _Remote(host, command, process)
        assert process.stdout is not None
        assert process.stderr is not None
        for target, pipe in ((self._listen, process.stdout), (self._overhear, process.stderr)):
            threading.Thread(target=target, args=(remote, pipe), daemon=True).start()
        return remote

    def _listen(self, remote: _Remote, pipe: IO[bytes]) -> None:
        """Split a host's output: answers to the queue, rank 0's output to the terminal."""
        held = b""
        while data := os.read(pipe.fileno(), 1 << 16):
            held += data
            while MARK in held:
                before, _, rest = held.partition(MARK)
                self._put(before)
                line, newline, after = rest.partition(b"\n")
                if not newline:
                    held = MARK + rest
                    break
                self._events.put((remote, json.loads(line)))
                held = after
            else:
                self._put(held)
                held = b""
        remote.process.wait()
        self._events.put((remote, None))

    def _put(self, data: bytes) -> None:
        if data:
            with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
                self._show(data)

    def _overhear(self, remote: _Remote, pipe: IO[bytes]) -> None:
        for line in pipe:
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                remote.said = [*remote.said[-9:], text]

    def _prepare(self, remotes: Sequence[_Remote], output: Path) -> tuple[str, int]:
        """Check every host; returns the first one's address that all others reach, and its port."""
        token = secrets.token_hex(16)
        proof = output.resolve() / "logs" / f".launch-{token[:8]}"
        proof.parent.mkdir(parents=True, exist_ok=True)
        proof.write_text(token)
        try:
            for remote in remotes:
                first = remote is remotes[0]
                remote.send(
                    do="check", folder=os.getcwd(), proof=str(proof), token=token,
                    port=self._port, first=first,
                )  # fmt: skip
            checked = self._answers(remotes)
        finally:
            proof.unlink(missing_ok=True)
        for remote, found in zip(remotes, checked, strict=True):
            if not found["sees"]:
                raise UsageError(
                    f"host {remote.host.name} does not see output={output}: what was written to"
                    f" {proof.parent} here is not found there; give an output= on a file system that"
                    " all hosts share"
                )
            if not found["folder"]:
                raise UsageError(
                    f"host {remote.host.name} has no folder {os.getcwd()}: start from a folder that"
                    " all hosts share"
                )
        port = int(checked[0]["port"])
        addresses: list[str] = checked[0]["addresses"]
        for remote in remotes[1:]:
            remote.send(do="reach", addresses=addresses, port=port)
        for remote, found in zip(remotes[1:], self._answers(remotes[1:]), strict=True):
            left = [a for a in addresses if a in found["reached"]]
            if not left:
                raise UsageError(
                    f"host {remote.host.name} cannot connect to {remotes[0].host.name}, port {port},"
                    f" at {', '.join(addresses) or 'any address'}: open the port, or choose one with --port"
                )
            addresses = left
        return addresses[0], port

    def _answers(self, remotes: Sequence[_Remote]) -> list[Mapping[str, Any]]:
        """One answer of each host. UsageError if one has none, or tells of an error."""
        found: dict[int, Mapping[str, Any]] = {}
        deadline = time.monotonic() + START_SECONDS
        while len(found) < len(remotes):
            if self._signals:
                raise KeyboardInterrupt
            event = self._next()
            if event is None:
                if time.monotonic() > deadline:
                    late = [r.host.name for r in remotes if id(r) not in found]
                    raise UsageError(
                        f"host {', '.join(late)}: no answer through `{self._rsh}` for"
                        f" {START_SECONDS:g} s: check the hostfile and the remote shell (--rsh)"
                    )
                continue
            remote, said = event
            if said is None:
                time.sleep(0.2)  # what it said on stderr may still be on its way
                raise UsageError(
                    f"host {remote.host.name} could not be used: {remote.last_words()}; check the"
                    " hostfile, the remote shell (--rsh), and that Headrace is installed there at"
                    " the same path"
                )
            if "error" in said:
                raise UsageError(f"host {remote.host.name}: {said['error']}")
            found[id(remote)] = said
        return [found[id(remote)] for remote in remotes]

    def _next(self) -> tuple[_Remote, Mapping[str, Any] | None] | None:
        try:
            return self._events.get(timeout=0.1)
        except queue.Empty:
            return None

    def _watch(self, remotes: Sequence[_Remote]) -> tuple[Failure, str] | None:
        failures: list[tuple[Failure, str]] = []
        open_ = {id(remote) for remote in remotes}
        passed, deadline = 0, float("inf")
        while open_ and time.monotonic() < deadline:
            if len(self._signals) > passed:
                for remote in remotes:
                    remote.send(do="signal", number=self._signals[passed])
                passed += 1
                deadline = min(deadline, time.monotonic() + STOP_GRACE + _END_SECONDS)
            event = self._next()
            if event is None:
                continue
            remote, said = event
            if said is None:
                open_.discard(id(remote))
                if remote.codes is None:
                    failures.append((self._lost(remote), remote.host.name))
            elif "failed" in said:
                failures.append((Failure(**said["failed"]), remote.host.name))
            elif "ended" in said:
                remote.codes = {int(rank): code for rank, code in said["ended"].items()}
                self.codes |= remote.codes
            if failures and deadline == float("inf"):
                deadline = time.monotonic() + _END_SECONDS
                for other in remotes:
                    other.hang_up()
        # A rank that lost its peer may be heard of before that peer.
        return min(failures, key=lambda item: likelihood(item[0].code)) if failures else None

    def _lost(self, remote: _Remote) -> Failure:
        time.sleep(0.2)
        return Failure(remote.host.first, remote.process.returncode, "", remote.last_words())
