"""What the person who waits is told, and rates."""

from __future__ import annotations

import io
import sys

import pytest

from trainer.engine import metrics


class Terminal(io.StringIO):
    def __init__(self, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@pytest.mark.parametrize("tty", [False, True])
def test_progress_shows_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, tty: bool) -> None:
    screen, now = Terminal(tty), 100.0
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    progress = metrics.Progress(steps=1000, start=100, batch=32)
    for step in range(101, 131):  # one second each
        now += 1.0
        progress.show(step, 2.5)
    shown = [part for part in screen.getvalue().replace("\r\033[K", "\n").split("\n") if part]
    assert len(shown) == (30 if tty else 3)
    assert shown[-1] == "  step 130 of 1,000, loss 2.5000, 32.0 samples/s, 14 min 30 s left"
    progress.close()
    assert screen.getvalue().endswith("\r\033[K" if tty else "left\n")


def test_durations_are_short() -> None:
    found = [metrics.duration(s) for s in (0.4, 59.4, 60, 3599, 7620, float("inf"))]
    assert found == ["0 s", "59 s", "1 min 00 s", "59 min 59 s", "2 h 07 min", "unknown time"]


def test_checkpoints_do_not_count_in_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now)
    clock = metrics.Clock(batch=8)
    for _ in range(4):
        now += 0.5
        clock.step(inside=0.498)
        now += 60  # a checkpoint
        clock.pause()
    read = clock.read()
    assert read["samples_per_s"] == pytest.approx(16)
    assert read["host_ms"] == pytest.approx(2)
    assert read["seconds"] == pytest.approx(242)
