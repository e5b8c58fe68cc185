"""Intervals against published values, another implementation, and how often they cover."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluation.intervals import macro_interval, mean_interval, paired_bootstrap, wilson

# R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score, no correction).
NEWCOMBE = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("successes", "n", "low", "high"), NEWCOMBE)
def test_wilson_has_the_published_limits(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for successes, n in [(0, 1), (1, 1), (3, 7), (500, 1000), (12_345, 54_321)]:
        theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        wide = stats.binomtest(successes, n).proportion_ci(0.99, method="wilson")
        assert wilson(successes, n, 0.99) == pytest.approx((wide.low, wide.high), abs=1e-9)


def test_wilson_refuses_what_is_no_proportion() -> None:
    for successes, n in [(1, 0), (-1, 5), (6, 5)]:
        with pytest.raises(ValueError, match="no proportion"):
            wilson(successes, n)


def test_repeating_the_captions_of_an_image_adds_no_evidence() -> None:
    values, images = np.array([1, 0, 1, 1, 0]), np.arange(5)
    once = mean_interval(values)
    thrice = mean_interval(np.repeat(values, 3), clusters=np.repeat(images, 3))
    assert once.n == 5
    assert (thrice.mean, thrice.low, thrice.high, thrice.n) == pytest.approx(
        (once.mean, once.low, once.high, once.n)
    )


def test_kish_size_of_unequal_clusters_by_hand() -> None:
    # Weights 3, 1, 1 of three images: 5^2 / (9 + 1 + 1).
    found = mean_interval([1, 1, 1, 0, 0], clusters=[7, 7, 7, 8, 9])
    assert found.n == pytest.approx(25 / 11)
    assert found.mean == pytest.approx(0.6)
    assert (found.low, found.high) == pytest.approx(wilson(0.6 * 25 / 11, 25 / 11))


def test_macro_weighs_classes_equally() -> None:
    hits, labels = [1, 0, 1, 1, 1, 1], [0, 0, 5, 5, 5, 5]
    found = macro_interval(hits, labels)
    assert found.mean == pytest.approx((0.5 + 1.0) / 2)
    assert found.n == pytest.approx(2**2 / (1 / 2 + 1 / 4))


def test_macro_of_equal_classes_is_the_pooled_interval() -> None:
    rng = np.random.default_rng(0)
    hits, labels = rng.random(60) < 0.3, np.repeat(np.arange(12), 5)
    found = macro_interval(hits, labels)
    assert (found.low, found.high) == pytest.approx(wilson(int(hits.sum()), 60))


def test_macro_interval_covers_the_truth() -> None:
    """In 2,000 experiments with classes of different difficulty and size, at least 95 % cover."""
    rng = np.random.default_rng(1)
    truth, sizes = rng.beta(0.4, 1.2, 40), rng.integers(2, 12, 40)
    labels = np.repeat(np.arange(40), sizes)
    inside = 0
    for _ in range(2000):
        found = macro_interval(rng.random(len(labels)) < truth[labels], labels)
        inside += found.low <= truth.mean() <= found.high
    assert inside / 2000 >= 0.95


def test_mean_interval_refuses_what_it_cannot_bound() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        mean_interval([0.5, 1.5])


def test_paired_bootstrap_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    a = rng.random(120)
    b = a - 0.05 + rng.normal(0, 0.1, 120)
    ours = paired_bootstrap(a, b, seed=3)
    theirs = stats.bootstrap(
        (a - b,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert ours.mean == pytest.approx((a - b).mean())
    spread = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * spread)


def test_paired_bootstrap_is_a_function_of_its_seed() -> None:
    a, b = np.arange(30.0), np.arange(30.0)[::-1].copy()
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)
    assert paired_bootstrap(a, b, seed=1) != paired_bootstrap(a, b, seed=2)


def test_pairing_removes_what_the_units_share() -> None:
    rng = np.random.default_rng(5)
    difficulty = rng.random(200)
    found = paired_bootstrap(difficulty + 0.01, difficulty)
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))
    with pytest.raises(ValueError, match="paired"):
        paired_bootstrap([1.0, 2.0], [1.0])
