"""Which source the k-th sequence of a run comes from: weights exact in sequences at every moment.

After any number n of sequences each source has given its ideal share of them, the sum of its weight over
the first n, to within 1 - 1/(2 m - 2) of a sequence for m sources: the chairman assignment (Tijdeman,
Discrete Mathematics 32, 1980), also where weights change. A unit of a source may be given once its share is
1/(2 m - 2) above what was given, and must be before it is 1 - 1/(2 m - 2) above; of those that may, the one
that must first is given. Numbers are exact fractions.

With constant weights the order repeats: a phase is a short table, so that seeking costs nothing.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from schemas.errors import UsageError

Numbers = npt.NDArray[np.int64]

LARGEST_PERIOD = 1 << 16
"""Sum of a phase's weights as whole numbers in lowest terms: sequences until its order repeats."""

LARGEST = 64
"""Sources of a mixture."""

_NEVER = 1 << 62
_SHORTEST = 1024


def whole(weights: Sequence[float]) -> list[int]:
    """Return weights as whole numbers in lowest terms: [0.7, 0.2, 0.1] as [7, 2, 1].

    UsageError if there is no positive one, or if their sum is over `LARGEST_PERIOD`.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    if min(exact) < 0 or not any(exact):
        raise UsageError(f"weights {_shown(weights)}: give numbers from 0 on, and one above 0")
    scale = math.lcm(*(f.denominator for f in exact))
    numbers = [int(f * scale) for f in exact]
    divisor = math.gcd(*numbers)
    numbers = [number // divisor for number in numbers]
    if sum(numbers) > LARGEST_PERIOD:
        near = [max(1e-4, round(float(f / sum(exact)), 4)) if f else 0.0 for f in exact]
        raise UsageError(
            f"weights {_shown(weights)} are as {' : '.join(map(str, numbers))}, which add up to "
            f"{sum(numbers)}; the order of a mixture may repeat after {LARGEST_PERIOD} sequences at "
            f"most: give fewer digits, such as {_shown(near)}"
        )
    return numbers


@dataclass(frozen=True)
class _Table:
    """Sources of consecutive sequences: uint8[n]; how often each came before in it; and in all of it."""

    source: npt.NDArray[np.uint8]
    ordinal: Numbers
    totals: Numbers

    @classmethod
    def of(cls, source: list[int], sources: int) -> _Table:
        given = np.array(source, np.uint8)
        ordinal = np.empty(len(given), np.int64)
        for i in range(sources):
            here = given == i
            ordinal[here] = np.arange(int(here.sum()))
        return cls(given, ordinal, np.bincount(given, minlength=sources).astype(np.int64))


@dataclass
class _Phase:
    """Sequences ``start`` to ``end`` with constant weights.

    ``ideal``: each source's share of what comes before, over a common denominator. The tables have a
    period each: those from ``cycle`` on repeat, up to ``tail``, which has its own table.
    """

    start: int
    end: int
    weights: list[int]
    ideal: list[int] = field(default_factory=list)
    before: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    tables: list[_Table] = field(default_factory=list)
    cycle: int = 0
    periods: int = 0
    tail: _Table | None = None

    @property
    def rounds(self) -> int:
        """How often the order that weights repeat is in a table: short ones would cost a look-up each."""
        return -(-_SHORTEST // sum(self.weights))

    @property
    def period(self) -> int:
        """Sequences of a table."""
        return self.rounds * sum(self.weights)


class Mixture:
    """The order of sources; see the module. Built once, then read by any thread."""

    def __init__(self, phases: Sequence[tuple[int, Sequence[float]]]) -> None:
        """``phases``: (first sequence, weight of each source), the first from 0 on, ascending.

        UsageError for weights that `whole` refuses.
        """
        weights = [whole(given) for _, given in phases]
        starts = [start for start, _ in phases]
        ends = [*starts[1:], _NEVER]
        self.sources = len(weights[0])
        self._starts = np.array(starts, np.int64)
        # Common denominator of shares and of the threshold 1/(2 m - 2).
        self._slack = max(1, 2 * self.sources - 2)
        self._unit = math.lcm(*(sum(w) for w in weights)) * self._slack
        self._phases = [_Phase(*one) for one in zip(starts, ends, weights, strict=True)]
        ideal = [0] * self.sources
        for phase in self._phases:
            phase.ideal = list(ideal)
            if phase.end < _NEVER:
                ideal = [self._ideal(phase, i, phase.end) for i in range(self.sources)]
        given = [0] * self.sources
        for number in range(len(self._phases)):
            given = self._fill(number, given)

    def locate(self, sequences: Numbers) -> tuple[Numbers, Numbers]:
        """Return the source of each sequence, and how many of that source come before: int64[n] each."""
        if self.sources == 1:
            return np.zeros_like(sequences), sequences
        source, ordinal = np.empty_like(sequences), np.empty_like(sequences)
        number = np.searchsorted(self._starts, sequences, side="right") - 1
        for p in np.unique(number).tolist():
            here = np.flatnonzero(number == p)
            source[here], ordinal[here] = _locate(self._phases[p], sequences[here])
        return source, ordinal

    def counts(self, sequences: int) -> list[int]:
        """Return how many of the first ``sequences`` each source gives."""
        if not sequences:
            return [0] * self.sources
        number = int(np.searchsorted(self._starts, sequences - 1, side="right")) - 1
        phase = self._phases[number]
        found = _before(phase, sequences - 1 - phase.start)
        source, _ = self.locate(np.array([sequences - 1]))
        found[source[0]] += 1
        return [int(n) for n in found]

    # -- building --------------------------------------------------------------------------

    def _ideal(self, phase: _Phase, i: int, n: int) -> int:
        """A source's share of the first n sequences, n in the phase, over the common denominator."""
        return phase.ideal[i] + (n - phase.start) * self._rate(phase, i)

    def _rate(self, phase: _Phase, i: int) -> int:
        return phase.weights[i] * (self._unit // sum(phase.weights))

    def _when(self, number: int, i: int, share: int) -> int:
        """The first n, from a phase on, at which a source's share is as large."""
        for phase in self._phases[number:]:
            if share <= phase.ideal[i]:
                return phase.start
            if rate := self._rate(phase, i):
                n = phase.start - (phase.ideal[i] - share) // rate
                if n <= phase.end:
                    return n
        return _NEVER

    def _fill(self, number: int, given: list[int]) -> list[int]:
        """Make a phase's tables from what was given before it; returns what is given at its end.

        As long as an end is a period away or more no decision looks beyond it, so decisions repeat when
        the state, what was given above the share, does.
        """
        phase = self._phases[number]
        period, m = phase.period, self.sources
        phase.before = np.array(given, np.int64)
        most = max(0, (phase.end - phase.start) // period - 1)
        seen: dict[tuple[int, ...], int] = {}
        state = list(given)
        phase.periods = phase.cycle = most
        while len(phase.tables) < most:
            done = len(phase.tables)
            moved = tuple(
                have - was - done * phase.rounds * weight
                for have, was, weight in zip(state, given, phase.weights, strict=True)
            )
            if moved in seen:
                phase.cycle = seen[moved]
                break
            seen[moved] = done
            phase.tables.append(
                _Table.of(self._run(number, phase.start + done * period, period, state), m)
            )
        if phase.end == _NEVER:
            return []
        last = phase.start + most * period
        state = [int(n) for n in _before(phase, most * period)]
        phase.tail = _Table.of(self._run(number, last, phase.end - last, state), m)
        return state

    def _run(self, number: int, start: int, steps: int, given: list[int]) -> list[int]:
        """Decide ``steps`` sequences from ``start`` on; ``given`` is brought up to date."""
        least = self._unit // self._slack if self.sources > 1 else 0
        when = functools.partial(self._when, number)
        waiting = [(when(i, n * self._unit + least), i) for i, n in enumerate(given)]
        heapq.heapify(waiting)
        ready: list[tuple[int, int]] = []
        found = []
        for n in range(start + 1, start + steps + 1):
            while waiting and waiting[0][0] <= n:
                i = heapq.heappop(waiting)[1]
                heapq.heappush(ready, (when(i, (given[i] + 1) * self._unit - least), i))
            i = heapq.heappop(ready)[1]
            found.append(i)
            given[i] += 1
            heapq.heappush(waiting, (when(i, given[i] * self._unit + least), i))
        return found


def _table(phase: _Phase, period: int) -> _Table:
    """The table of a period of a phase, counted from 0; the one after its last is the tail."""
    if period == phase.periods and phase.tail is not None:
        return phase.tail
    if period >= phase.cycle:
        period = phase.cycle + (period - phase.cycle) % (len(phase.tables) - phase.cycle)
    return phase.tables[period]


def _before(phase: _Phase, n: int) -> Numbers:
    """What each source gives before the n-th sequence of a phase, in all."""
    period = phase.period
    periods = min(n // period, phase.periods)
    found = phase.before.copy()
    once = min(periods, phase.cycle)
    for table in phase.tables[:once]:
        found += table.totals
    if periods > once:
        cycle = phase.tables[phase.cycle :]
        rounds, rest = divmod(periods - once, len(cycle))
        for i, table in enumerate(cycle):
            found += table.totals * (rounds + (i < rest))
    if inside := n - periods * period:
        given = _table(phase, periods).source[:inside]
        found += np.bincount(given, minlength=len(found))
    return found


def _locate(phase: _Phase, sequences: Numbers) -> tuple[Numbers, Numbers]:
    """Source of each sequence of a phase, and how many of it come before in all."""
    period = phase.period
    local = sequences - phase.start
    number = np.minimum(local // period, phase.periods)
    source, ordinal = np.empty(len(local), np.int64), np.empty(len(local), np.int64)
    for one in np.unique(number).tolist():
        here = np.flatnonzero(number == one)
        inside = local[here] - one * period
        table = _table(phase, one)
        source[here] = table.source[inside]
        ordinal[here] = table.ordinal[inside] + _before(phase, one * period)[source[here]]
    return source, ordinal


def _shown(weights: Sequence[float]) -> str:
    return f"[{', '.join(format(weight, 'g') for weight in weights)}]"
