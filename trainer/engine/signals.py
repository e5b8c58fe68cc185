"""Ctrl-C and SIGTERM end a run after the step, with a checkpoint, whichever rank hears them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.engine.step import Outcome

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


LONG = 5.0
"""Seconds of a step after which ranks ask one another once more: a signal that came in the middle of a
long step ends the run after it, and not after the next."""


class Wishes:
    """What a rank asks of all in each step: to stop, and to commit what it has written. Summed over
    ranks with the step's loss, so it costs no collective of its own but after `LONG` steps."""

    def __init__(self, signals: Signals, written: Callable[[], int], ranks: int) -> None:
        """``written``: 1 if this rank has written its part of a checkpoint."""
        self._signals, self._written, self._ranks = signals, written, ranks
        self._seconds = 0

    def own(self) -> list[int]:
        """Return this rank's wishes: SIGINT, SIGTERM, commit, and seconds of the step before."""
        return [*self._signals.seen(), self._written(), self._seconds]

    def heard(self, outcome: Outcome) -> tuple[list[int], bool]:
        """Return the signals that ranks have seen, and whether all have written. Called by all."""
        *stops, written, seconds = outcome.stops
        self._seconds = round(outcome.seconds)
        if seconds > LONG * self._ranks and self._ranks > 1:
            import torch.distributed as dist

            every: list[Any] = [None] * self._ranks
            dist.all_gather_object(every, self._signals.seen())
            stops = [sum(column) for column in zip(*every, strict=True)]
        elif self._ranks == 1:
            stops = self._signals.seen()
        return stops, written == self._ranks
