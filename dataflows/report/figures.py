"""Static SVG of the rank-count curves: no script, no style attribute, the page's classes.

Every text that enters a figure passes `text.attribute` and Jinja's escaping, as all text of the
page does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from curation.page.numbers import compact
from curation.page.text import attribute

WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 34


@dataclass(frozen=True)
class RankCurve:
    """Counts by rank, the largest first, thinned to some 60 points (means around a rank)."""

    rank: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, points: int = 60) -> RankCurve:
        """Thins counts per entry (any order; zeros are left out) to log-spaced ranks, 1-based."""
        ordered = np.sort(counts[counts > 0].astype(np.float64))[::-1]
        if not ordered.size:
            return cls(np.empty(0), np.empty(0))
        edges = np.unique(np.geomspace(1, ordered.size + 1, points + 1).astype(np.int64))
        rank = np.sqrt(edges[:-1] * (edges[1:] - 1.0).clip(1))
        return cls(rank, np.add.reduceat(ordered, edges[:-1] - 1) / np.diff(edges))


def rank_count_svg(
    before: RankCurve,
    after: RankCurve | None,
    threshold: float,
    title: str,
    description: str,
    name: str,
) -> Markup:
    """One log-log panel: counts before and after, threshold t, tail before the draw shaded.

    `name` becomes part of element ids and must be unique on the page: ASCII letters, digits, "-".
    """
    lowest = 1.0
    if after is not None and after.count.size:
        lowest = float(min(1.0, max(0.1, after.count[-1])))
    x_axis = _Axis(0.0, max(1.0, math.log10(float(before.rank[-1]))), LEFT, WIDTH - RIGHT)
    highest = max(1.0, math.log10(float(before.count[0])) * 1.03)
    y_axis = _Axis(math.floor(math.log10(lowest)), highest, HEIGHT - BOTTOM, TOP)
    parts = [
        Markup(
            '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">'
            '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
        ).format(
            WIDTH, HEIGHT, name, name, name, attribute(title), name, attribute(description, 600)
        )
    ]
    tail = np.flatnonzero(before.count < threshold)
    if tail.size:
        x = x_axis.at(before.rank[tail[0]])
        parts.append(
            Markup('<rect class="tail" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
                x, TOP, max(0.0, WIDTH - RIGHT - x), HEIGHT - BOTTOM - TOP
            )
        )
    parts += _grid(x_axis, y_axis)
    y = y_axis.at(max(threshold, 10**y_axis.low))
    parts.append(
        Markup('<line class="threshold" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            LEFT, WIDTH - RIGHT, y, y
        )
    )
    parts.append(_line("before", before, x_axis, y_axis))
    if after is not None:
        parts.append(_line("after", after, x_axis, y_axis))
    parts.append(
        Markup(
            '<text class="threshold-label" x="{}" y="{:.1f}">t = {}</text>'
            '<text class="axis" x="{:.0f}" y="{}" text-anchor="middle">rank of the entry</text>'
            "</svg>"
        ).format(LEFT + 5, y - 5, compact(threshold), (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4)
    )
    return Markup("").join(parts)


@dataclass(frozen=True)
class _Axis:
    """A log10 axis from `low` to `high` (exponents) over the pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> Sequence[int]:
        first, last = math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9)
        return range(first, last + 1, 1 if last - first < 6 else 2)


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[Markup]:
    parts = []
    for exponent in x_axis.ticks():
        x = x_axis.at(10.0**exponent)
        parts.append(
            Markup(
                '<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
                '<text class="axis" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
            ).format(x, x, TOP, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 13, compact(10.0**exponent))
        )
    for exponent in y_axis.ticks():
        y = y_axis.at(10.0**exponent)
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="axis" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT, WIDTH - RIGHT, y, y, LEFT - 5, y + 3.5, compact(10.0**exponent))
        )
    return parts


def _line(kind: str, curve: RankCurve, x_axis: _Axis, y_axis: _Axis) -> Markup:
    points = " ".join(
        f"{x_axis.at(float(rank)):.1f},{y_axis.at(float(count)):.1f}"
        for rank, count in zip(curve.rank, curve.count, strict=True)
    )
    return Markup('<polyline class="{}" points="{}"/>').format(kind, points)
