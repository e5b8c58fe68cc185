"""Ctrl-C and SIGTERM end a run after the step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Notes the stopping signals while it is entered; a second one acts as it would without."""

    def __init__(self) -> None:
        self._seen = dict.fromkeys(STOPPING, 0)
        self._before: dict[int, Any] = {}

    def seen(self) -> list[int]:
        """Return 0 or 1 for SIGINT and for SIGTERM."""
        return list(self._seen.values())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._seen[signal.Signals(number)] = 1
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # the only one that may
            for number in STOPPING:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()


def exit_code(stops: list[int]) -> int:
    """Return 130 or 143 for the ranks' summed `Signals.seen`, 0 if none was stopped."""
    for number, count in zip(STOPPING, stops, strict=False):
        if count:
            return 128 + number
    return 0
