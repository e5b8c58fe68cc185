"""What the launcher starts on each of several hosts: ``python -m trainer.launching.agent``.

It speaks JSON lines: requests on stdin, answers on stdout, each after a record separator (so that
rank 0's output can pass on the same stream). The command line is always the same plain words, so no
remote shell has anything to quote. When stdin ends, whatever the reason, the ranks are ended: a
remote shell that is killed takes nothing else down with it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from schemas.errors import HeadraceError
from trainer.engine.signals import STOPPING
from trainer.launching.environment import interface_addresses, listen
from trainer.launching.supervisor import Share, Supervisor

MARK = b"\x1e"
"""Stands before an answer, which ends with the line."""

SEEN_SECONDS = 5.0
"""How long a file that another host has written may take to be seen on a shared file system."""

_REACH_SECONDS = 5.0


def answer(**values: Any) -> None:
    """Send an answer to the launcher."""
    _write(MARK + json.dumps(values).encode() + b"\n")


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class Agent:
    """Serves one launcher: ``check``, ``reach``, then ``run``."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._supervisor: Supervisor | None = None
        self._told: list[int] = []
        self._listening: socket.socket | None = None
        self._ended = threading.Event()

    def serve(self) -> int:
        """Handle requests until the run has ended or the launcher is gone; returns the exit code."""
        threading.Thread(target=self._read, daemon=True).start()
        while (request := self._requests.get()) is not None:
            kind = request.pop("do")
            if kind == "run":
                return self._run(**request)
            try:
                answer(**(self._check(**request) if kind == "check" else self._reach(**request)))
            except HeadraceError as error:
                answer(error=str(error))
                return error.exit_code
        return 1

    def _read(self) -> None:
        """Requests to the queue; signals and the end of the stream straight to the ranks."""
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if request["do"] == "signal":
                self._stop(request["number"])
            else:
                self._requests.put(request)
        self._ended.set()
        self._requests.put(None)
        if self._supervisor is not None:
            self._supervisor.abandon()

    def _check(self, folder: str, proof: str, token: str, port: int | None, first: bool) -> Any:
        """Whether this host sees the run directory; the first host also offers its addresses."""
        deadline = time.monotonic() + SEEN_SECONDS
        while not (seen := _holds(proof, token)) and time.monotonic() < deadline:
            if self._ended.wait(0.2):
                break
        if os.path.isdir(folder):
            os.chdir(folder)  # relative paths of the settings mean what they mean to the launcher
        found = {"sees": seen, "folder": os.path.isdir(folder)}
        if not first:
            return found
        self._listening = listen(port)
        addresses = list(interface_addresses().values())
        return {**found, "addresses": addresses, "port": self._listening.getsockname()[1]}

    def _reach(self, addresses: list[str], port: int) -> Any:
        """Which addresses of the first host can be connected to from here."""
        reached = []
        for address in addresses:
            try:
                socket.create_connection((address, port), _REACH_SECONDS).close()
                reached.append(address)
            except OSError:
                continue
        return {"reached": reached}

    def _run(self, share: dict[str, Any]) -> int:
        if self._listening is not None:
            self._listening.close()
        share["master"] = tuple(share["master"])
        self._supervisor = Supervisor(
            Share(**share), _write, lambda failure: answer(failed=asdict(failure))
        )
        # Who stops a whole job signals agents too, and the launcher's request comes besides: the
        # supervisor takes them as one stop.
        for number in STOPPING:
            signal.signal(number, lambda received, _: self._stop(received))
        for told in self._told:
            self._supervisor.stop(told)
        if self._ended.is_set():
            return 1
        failure = self._supervisor.run()
        answer(ended=self._supervisor.codes)
        return 0 if failure is None else 1

    def _stop(self, number: int) -> None:
        """Pass a signal on, now or once the ranks start; one that is passed on twice is one stop."""
        self._told.append(number)
        if self._supervisor is not None:
            self._supervisor.stop(number)


def _holds(path: str, token: str) -> bool:
    try:
        return Path(path).read_text() == token
    except OSError:
        return False


if __name__ == "__main__":
    code = Agent().serve()
    os._exit(code)  # the thread that reads stdin is still at it
