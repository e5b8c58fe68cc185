"""The interval of paired differences against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.claims.paired import paired


def test_a_worked_example() -> None:
    # Mean 0.1, s = 0.1; t(0.975, 2) = 4.3027: half = 4.3027 * 0.1 / sqrt(3).
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert paired([0.0, 0.1, 0.2]) == {
        "mean": 0.1,
        "low": round(0.1 - half, 4),
        "high": round(0.1 + half, 4),
    }


@pytest.mark.parametrize("n", range(2, 21))
def test_interval_is_students(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(n).normal(size=(2, n))
    found, wanted = paired((a - b).tolist()), stats.ttest_rel(a, b).confidence_interval(0.95)
    scale = float(np.std(a - b))
    assert found["mean"] == pytest.approx(float(np.mean(a - b)), abs=6e-5)
    assert found["low"] == pytest.approx(wanted.low, abs=6e-5 + 1e-4 * scale)
    assert found["high"] == pytest.approx(wanted.high, abs=6e-5 + 1e-4 * scale)


@pytest.mark.parametrize("n", [0, 1, 21])
def test_other_numbers_of_differences_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} differences"):
        paired([0.1] * n)
