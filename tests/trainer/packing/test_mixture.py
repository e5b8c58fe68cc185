"""Weights of a mixture are exact at every moment: compared with exact fractions, sequence by sequence."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UsageError
from trainer.packing.mixture import LARGEST_PERIOD, Mixture, whole

Phases = list[tuple[int, list[float]]]


@st.composite
def phases(draw: st.DrawFn) -> Phases:
    """Up to 4 phases of up to 7 sources, shorter and longer than the order takes to repeat."""
    sources = draw(st.integers(1, 7))
    weight = st.one_of(st.integers(0, 12), st.sampled_from([0.05, 0.125, 100, 170]))
    found: Phases = []
    start = 0
    for _ in range(draw(st.integers(1, 4))):
        weights = draw(st.lists(weight, min_size=sources, max_size=sources).filter(any))
        found.append((start, [float(w) for w in weights]))
        start += draw(st.one_of(st.integers(1, 60), st.integers(1000, 2200)))
    return found


def ideal(of: Phases, count: int) -> tuple[np.ndarray, int]:
    """Share of each source after each of the first sequences, in units of 1/u: objects [count, s], u."""
    exact = [(start, [Fraction(str(w)) for w in weights]) for start, weights in of]
    unit = math.lcm(*(f.denominator for _, ws in exact for f in (w / sum(ws) for w in ws)))
    rows = []
    for (start, weights), end in zip(exact, [*(s for s, _ in exact[1:]), count], strict=True):
        rows += [[int(w / sum(weights) * unit) for w in weights]] * (end - start)
    return np.cumsum(np.array(rows, dtype=object), axis=0), unit


@settings(deadline=None, max_examples=40)
@given(phases())
def test_every_prefix_has_its_share_within_a_sequence(of: Phases) -> None:
    count = of[-1][0] + 1300
    mixture = Mixture(of)
    source, ordinal = mixture.locate(np.arange(count))
    given_ = np.cumsum(source[:, None] == np.arange(mixture.sources), axis=0)
    assert (ordinal == given_[np.arange(count), source] - 1).all()
    shares, unit = ideal(of, count)
    bound = 1 - Fraction(1, 2 * mixture.sources - 2) if mixture.sources > 1 else 0
    assert abs(shares - given_.astype(object) * unit).max() <= bound * unit < unit


@settings(deadline=None, max_examples=30)
@given(phases(), st.integers(0, 10**13))
def test_any_place_is_found_without_those_before(of: Phases, far: int) -> None:
    """10^13 sequences on, and in an order without a pattern, as if all before had been counted."""
    mixture = Mixture(of)
    counts = mixture.counts(far)
    assert sum(counts) == far
    at = np.arange(far, far + 50)
    source, ordinal = mixture.locate(at)
    for s, n in zip(source.tolist(), ordinal.tolist(), strict=True):
        assert n == counts[s]
        counts[s] += 1
    assert counts == mixture.counts(far + 50)
    mixed = np.random.default_rng(0).permutation(50)
    assert (mixture.locate(at[mixed])[0] == source[mixed]).all()


def test_weights_are_ratios_of_whole_numbers() -> None:
    assert whole([0.7, 0.2, 0.1]) == [7, 2, 1]
    assert whole([2.5, 0, 5]) == [1, 0, 2]
    assert whole([1e-3, 1]) == [1, 1000]


def test_weights_that_cannot_be_exact_are_refused_with_those_that_can() -> None:
    with pytest.raises(
        UsageError, match=r"1234567 : 8765433, .* 10000000.*65536.*0\.1235, 0\.8765"
    ):
        whole([0.1234567, 0.8765433])
    assert sum(whole([0.1235, 0.8765])) <= LARGEST_PERIOD
    with pytest.raises(UsageError, match="one above 0"):
        whole([0.0, 0.0])
