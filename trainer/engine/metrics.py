"""What a run tells: metrics.jsonl, TensorBoard, and progress on stderr. Written by rank 0 only.

metrics.jsonl only grows. After a restart steps may come again; the last line of a step counts.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

METRICS = "metrics.jsonl"


class Metrics:
    """Appends lines to metrics.jsonl and numbers to TensorBoard; a context manager."""

    def __init__(self, output: Path, start: int) -> None:
        """``start``: the first step that will be made; later ones of TensorBoard are hidden."""
        # Without this the writer of TensorBoard looks for TensorFlow, which takes seconds.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        path = output / METRICS
        _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = EventFileWriter(str(output / "tensorboard"))
        if start:
            session = SessionLog(status=SessionLog.START)
            self._board.add_event(Event(step=start + 1, wall_time=time.time(), session_log=session))

    def event(self, name: str, step: int, **values: Any) -> None:
        """Write an event: started, continued, replaced, saved, left_out, finished."""
        self._line({"event": name, "step": step, **values})

    def step(self, step: int, values: dict[str, Any]) -> None:
        """Write the metrics after `step` steps."""
        self._line({"step": step, **values})
        numbers = {n: v for n, v in values.items() if isinstance(v, int | float)}
        summary = self._summary(
            value=[self._summary.Value(tag=n, simple_value=v) for n, v in numbers.items()]
        )
        self._board.add_event(self._event(step=step, wall_time=time.time(), summary=summary))

    def _line(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values, allow_nan=False, default=str) + "\n")
        self._file.flush()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()


def _cut_torn_line(path: Path) -> None:
    """Remove what a killed run left of its last line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        tail_start = max(0, size - (1 << 16))
        file.seek(tail_start)
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(tail_start + tail.rfind(b"\n") + 1)


class Clock:
    """Rates since they were last read. Time in checkpoints does not count."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._begun = self._mark = time.perf_counter()
        self._steps, self._wall, self._inside = 0, 0.0, 0.0

    def step(self, inside: float) -> None:
        """Count a step, of which `inside` seconds went to forward, backward and optimizer."""
        now = time.perf_counter()
        self._steps += 1
        self._wall += now - self._mark
        self._inside += inside
        self._mark = now

    def pause(self) -> None:
        """Leave out the time since the last step."""
        self._mark = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return samples/s, milliseconds a step outside forward, backward and optimizer step, and
        seconds since the loop began."""
        values = {
            "samples_per_s": self._steps * self._batch / max(self._wall, 1e-9),
            "host_ms": 1e3 * (self._wall - self._inside) / self._steps,
            "seconds": time.perf_counter() - self._begun,
        }
        self._steps, self._wall, self._inside = 0, 0.0, 0.0
        return values


class Progress:
    """Where the run is: one rewritten line on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, steps: int, start: int, batch: int) -> None:
        self._steps, self._start, self._batch = steps, start, batch
        self._tty = sys.stderr.isatty()
        self._begun = self._shown = time.monotonic()

    def show(self, step: int, loss: float) -> None:
        """Tell, if it is time to, that `step` steps are done; costs microseconds otherwise."""
        now = time.monotonic()
        if now - self._shown < (0.5 if self._tty else 10.0):
            return
        self._shown = now
        rate = (step - self._start) / max(now - self._begun, 1e-9)
        left = (self._steps - step) / rate if rate else math.inf
        line = (
            f"  step {step:,} of {self._steps:,}, loss {loss:.4f}, "
            f"{rate * self._batch:,.1f} samples/s, {duration(left)} left"
        )
        end = "" if self._tty else "\n"
        start = "\r\033[K" if self._tty else ""
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Clear the line of a terminal."""
        if self._tty:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return `42 s`, `3 min 05 s` or `2 h 07 min`."""
    if not math.isfinite(seconds):
        return "unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
