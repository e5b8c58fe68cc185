"""Ctrl-C, SIGTERM and SIGHUP end a run after the step, with a checkpoint, whichever rank hears them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.engine.step import Outcome

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

GRACE = 2.0
"""Seconds after the first stopping signal in which further ones are the same stop. Who stops a whole
job (systemd, Slurm, a shell's process group) signals each process, and the launcher passes its own
signal on, so a rank hears of one stop several times. A person who presses Ctrl-C again waits longer."""


def deliberate(signals: Iterable[tuple[float, int]]) -> list[int]:
    """Return the signals that mean something: of (time, number) the first, and those after its grace.

    SIGKILL stands for a second one whose time somebody else has judged, so it always counts.
    """
    found: list[int] = []
    first: float | None = None
    for at, number in signals:
        if first is None or at - first >= GRACE or number == signal.SIGKILL:
            found.append(number)
        first = at if first is None else first
    return found


class Signals:
    """Notes the stopping signals while it is entered.

    Repeats within `GRACE` of the first are ignored: one that comes when all is saved would look like a
    death. So after a stop the exit waits for the end of the grace; a launcher and its ranks, which end
    soon, only go on ignoring. A later signal acts as it would without, or calls ``again``.
    """

    def __init__(
        self,
        first: Callable[[int], Any] = lambda number: None,
        again: Callable[[int], Any] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """``first``, ``again``: called, in the handler, with the first signal and each deliberate one
        after it."""
        self._seen = dict.fromkeys(STOPPING, 0)
        self._before: dict[int, Any] = {}
        self._first, self._again = first, again
        self._at: float | None = None
        self._ends = again is not None or "RANK" in environ
        self._entered = False

    def seen(self) -> list[int]:
        """Return 0 or 1 for SIGINT, SIGTERM and SIGHUP: 1 for the first that came."""
        return list(self._seen.values())

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._at is None:
            self._at = now
            self._seen[signal.Signals(number)] = 1
            self._first(number)
        elif self._lasts(now):
            pass
        elif self._entered and self._again is not None:
            self._again(number)
        else:
            self._restore()
            signal.raise_signal(number)

    def _lasts(self, now: float) -> bool:
        """Whether a signal that comes now belongs to the first."""
        return self._at is not None and now - self._at < GRACE

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __enter__(self) -> Signals:
        self._entered = True
        if threading.current_thread() is threading.main_thread():  # the only one that may
            for number in STOPPING:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup: the run is to outlive its terminal
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered = False
        while not self._ends and self._lasts(time.monotonic()):
            time.sleep(0.02)
        if not self._lasts(time.monotonic()):
            self._restore()


def exit_code(stops: list[int]) -> int:
    """Return 130, 143 or 129 for the ranks' summed `Signals.seen`, 0 if none was stopped."""
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
        """Return this rank's wishes: SIGINT, SIGTERM, SIGHUP, commit, and seconds of the step before."""
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
