"""The interval of a paired difference over few seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

T_975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930),
)
"""0.975 quantiles of Student's t with 1 to 19 degrees of freedom."""


def paired(differences: Sequence[float]) -> dict[str, float]:
    """Mean of 2 to 20 paired differences with Student's 95 % interval: {mean, low, high}.

    A bootstrap over five seeds would be too narrow. ValueError for fewer or more differences.
    """
    n = len(differences)
    if not 2 <= n <= len(T_975) + 1:
        raise ValueError(f"{n} differences: give 2 to {len(T_975) + 1}")
    mean = math.fsum(differences) / n
    variance = math.fsum((value - mean) ** 2 for value in differences) / (n - 1)
    half = T_975[n - 2] * math.sqrt(variance / n)
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}
