"""The first stopping signal, its repeats, and a deliberate second one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from trainer.engine import signals
from trainer.engine.signals import Signals, deliberate, exit_code


class Clock:
    """A time that tests set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(signals, "time", found)
    return found


@pytest.fixture
def outside() -> Iterator[list[int]]:
    """Signals that reach the handlers of before."""
    heard: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = {number: signal.signal(number, note) for number in signals.STOPPING}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", signals.STOPPING)
def test_repeats_of_any_kind_are_one_stop(
    clock: Clock, outside: list[int], number: signal.Signals
) -> None:
    with Signals() as heard:
        signal.raise_signal(number)
        clock.now += signals.GRACE - 0.1
        for repeat in signals.STOPPING:
            signal.raise_signal(repeat)
        assert exit_code(heard.seen()) == 128 + number
        assert outside == []
        clock.now += 0.2
        signal.raise_signal(signal.SIGTERM)
        assert outside == [signal.SIGTERM]
    assert exit_code(heard.seen()) == 128 + number


def test_a_process_that_was_stopped_hears_repeats_until_their_grace_ends(
    clock: Clock, outside: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def repeat(seconds: float) -> None:
        clock.now += seconds
        if clock.now < 101.9:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(clock, "sleep", repeat)
    before = signal.getsignal(signal.SIGTERM)
    with Signals(environ={}):
        signal.raise_signal(signal.SIGTERM)
    assert outside == [] and clock.now >= 102 and signal.getsignal(signal.SIGTERM) is before


def test_a_rank_that_has_saved_does_not_die_of_a_repeat(clock: Clock, outside: list[int]) -> None:
    with Signals(environ={"RANK": "0"}):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert outside == []
    clock.now += signals.GRACE
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert outside[-2:] == [signal.SIGINT, signal.SIGINT]


def test_without_a_stop_all_is_as_before(clock: Clock, outside: list[int]) -> None:
    before = [signal.getsignal(number) for number in signals.STOPPING]
    with Signals() as heard:
        assert exit_code(heard.seen()) == 0
    assert [signal.getsignal(number) for number in signals.STOPPING] == before


def test_a_run_under_nohup_outlives_its_terminal(clock: Clock, outside: list[int]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals() as heard:
        signal.raise_signal(signal.SIGHUP)
        assert exit_code(heard.seen()) == 0


def test_the_first_and_each_deliberate_one_are_called(clock: Clock, outside: list[int]) -> None:
    first: list[int] = []
    again: list[int] = []
    with Signals(first.append, again.append):
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        clock.now += signals.GRACE
        signal.raise_signal(signal.SIGINT)
    assert (first, again, outside) == ([signal.SIGTERM], [signal.SIGINT], [])


def test_which_signals_are_deliberate() -> None:
    term, kill, grace = signal.SIGTERM, signal.SIGKILL, signals.GRACE
    assert deliberate([]) == []
    assert deliberate([(5.0, term), (5.1, signal.SIGHUP), (4.9 + grace, term)]) == [term]
    assert deliberate([(5.0, term), (5.1, term), (5.0 + grace, term)]) == [term, term]
    assert deliberate([(5.0, term), (5.1, kill)]) == [term, kill]
