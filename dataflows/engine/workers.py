"""Worker processes of the in-process runner, which end when they should.

Beam's own handler waits for ever for a worker that was killed, or that is closed before it has
connected; it starts workers through a shell, with the interpreter's path unquoted; and a Ctrl-C in
the terminal reaches them, so that they print tracebacks. This one ends the job when a worker dies,
ends the workers when the job ends, and writes what they print to the run's log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.transforms import environments
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]

URN = "headrace:worker_process:v1"
_GRACE_SECONDS = 5.0
_MAIN = "dataflows.engine.worker"


class WorkerProcesses(environments.Environment):
    """The environment of a pipeline whose steps run in processes of this machine."""

    def __init__(self, log: Path) -> None:
        super().__init__(capabilities=environments.python_sdk_capabilities())
        self._log = log

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        """Beam's form: what ``_Process`` is made from."""
        return URN, str(self._log).encode()


_started: list[_Process] = []


def end_all() -> str | None:
    """Kill what is left of a job's processes, as after a second Ctrl-C; how one died, if one did."""
    died = next((process.death for process in _started if process.death), None)
    for process in _started:
        process.kill()
    _started.clear()
    return died


@worker_handlers.WorkerHandler.register_environment(URN, bytes)
class _Process(worker_handlers.GrpcWorkerHandler):
    """One worker process."""

    def __init__(self, payload: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._log = payload.decode()
        self._closing = threading.Event()
        self.death: str | None = None

    def start_worker(self) -> None:
        """Start it, in a session of its own: the terminal's Ctrl-C is for the command."""
        control = self.control_api_service_descriptor()
        logging = self.logging_api_service_descriptor()
        options = self.provision_info.provision_info.pipeline_options
        variables = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(logging),
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
        }
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MAIN],
                env=os.environ | variables,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _started.append(self)
        threading.Thread(target=self._watch, name="watch_worker", daemon=True).start()

    def kill(self) -> None:
        """End the process now; its unit in hand is done again by the next run."""
        self._closing.set()
        self._process.kill()

    def close(self) -> None:
        """End it: at once when the job failed or was interrupted, else when it has said goodbye."""
        self._closing.set()
        # Beam closes its workers in a `finally`: an exception on its way is seen from here.
        if sys.exc_info()[0] is not None or not self._connected():
            self.kill()
        super().close()

    def stop_worker(self) -> None:
        """Wait for its end, but not long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _connected(self) -> bool:
        started = worker_handlers.BeamFnControlServicer.STARTED_STATE
        return bool(self.control_conn._state == started)

    def _watch(self) -> None:
        """When the process dies with work in hand, answer for it, so that the job ends."""
        code = self._process.wait()
        if not self._closing.is_set():
            self.death = _death(code)
        while not self._closing.wait(0.2):
            # Also what is asked of it from now on.
            for future in list(self.control_conn._futures_by_id.values()):
                answer = beam_fn_api_pb2.InstructionResponse(
                    instruction_id=future.instruction_id, error=self.death
                )
                if not future.is_done():
                    future.set(answer)


def _death(code: int) -> str:
    how = f"exit code {code}"
    hint = ""
    if code < 0:
        how = signal.Signals(-code).name
        hint = " (the system does so when memory runs out: try fewer --workers)"
    return (
        f"a worker process ended with {how} before its work was done{hint}; finished units are kept: "
        "the same command continues"
    )
