"""Confidence intervals of scores: Wilson's, and a bootstrap of paired differences.

Every interval here is a pure function of its arguments: the bootstrap draws with
``schemas.ids.uniform``, so the same values and seed give the same limits anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.ids import uniform

LEVEL = 0.95
"""Coverage of every interval that is reported."""

RESAMPLES = 10_000
_SALT = 401
_CHUNK = 500  # resamples held at once

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean with the limits of its interval; ``n`` is the effective number of independent units."""

    mean: float
    low: float
    high: float
    n: float

    def to_json(self) -> dict[str, float]:
        """Return the fields, to 6 decimals."""
        return {name: round(float(value), 6) for name, value in vars(self).items()}


def wilson(successes: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (E. B. Wilson, JASA 22, 1927).

    ``successes`` of ``n`` may be fractional (effective sizes). Unlike the normal approximation it
    has a width at 0 and at n. Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if not (n > 0 and 0 <= successes <= n * (1 + 1e-12)):
        raise ValueError(f"{successes} successes of {n} trials are no proportion")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = min(successes / n, 1.0)
    scale = 1 / (1 + z * z / n)
    centre = (p + z * z / (2 * n)) * scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) * scale
    # At the ends the limit is exact; rounding must not put it beyond the mean.
    return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))


def mean_interval(
    values: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    clusters: npt.ArrayLike | None = None,
    level: float = LEVEL,
) -> Estimate:
    """Return the weighted mean of values in [0, 1] with Wilson's interval at Kish's effective size.

    ``values``, ``weights`` (default: equal) and ``clusters`` (numbers; default: each value its own)
    are [n]. Values of one cluster, such as the captions of one image, count as one observation:
    with W the weight of a cluster, the effective size is (sum W)^2 / sum W^2 (L. Kish, Survey
    Sampling, 1965), and a mean of independent values in [0, 1] has at most the variance of a
    proportion of that size. So the interval is rather too wide than too narrow: it does not use
    that classes are strata, nor that values of a cluster may differ. Raises ValueError for no
    values, and for values outside [0, 1].
    """
    value = np.asarray(values, np.float64)
    weight = np.ones_like(value) if weights is None else np.asarray(weights, np.float64)
    if not len(value) or weight.sum() <= 0:
        raise ValueError("a mean needs at least one value")
    if value.min() < 0 or value.max() > 1:
        raise ValueError("this interval is for values in [0, 1]")
    total = weight.sum()
    units: Floats = weight
    if clusters is not None:
        _, number = np.unique(np.asarray(clusters), return_inverse=True)
        units = np.bincount(number, weights=weight).astype(np.float64)
    n = float(total**2 / np.sum(units**2))
    mean = float(np.clip(np.sum(weight * value) / total, 0, 1))
    return Estimate(mean, *wilson(mean * n, n, level), n)


def macro_interval(hits: npt.ArrayLike, labels: npt.ArrayLike) -> Estimate:
    """Return the mean over classes of the accuracy in each class: hits and labels [n].

    Image weights are 1 / (classes * images of the class); see `mean_interval`.
    """
    label = np.asarray(labels)
    _, number, count = np.unique(label, return_inverse=True, return_counts=True)
    return mean_interval(hits, 1.0 / count[number])


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """Return the mean of a - b over paired units with its percentile bootstrap interval.

    ``a`` and ``b`` are [n], one value a unit (a class, a training seed), in the same order; whole
    units are drawn with replacement (B. Efron, R. Tibshirani, 1993, chapter 13). With fewer than
    about 20 units a percentile interval is too narrow: by a third at 5, where `Estimate.n` says so.
    Raises ValueError for arrays that cannot be paired.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"values of {first.shape} and {second.shape} cannot be paired")
    difference = first - second
    means = _resampled_means(difference, seed, resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(difference.mean()), float(low), float(high), float(len(difference)))


def _resampled_means(values: Floats, seed: int, resamples: int) -> Floats:
    """Means of ``resamples`` draws of len(values) values with replacement."""
    n = len(values)
    means = []
    for start in range(0, resamples, _CHUNK):
        words: npt.NDArray[Any] = np.empty((min(_CHUNK, resamples - start) * n, 2), np.uint64)
        words[:, 0] = start + np.arange(len(words)) // n
        words[:, 1] = np.arange(len(words)) % n
        drawn = (uniform(seed, 0, words, _SALT) * n).astype(np.int64)
        means.append(values[drawn].reshape(-1, n).mean(1))
    return np.concatenate(means)
