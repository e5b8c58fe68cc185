"""Static SVG line charts: no script, no style attribute, the page's classes.

Every text that enters a chart passes `text.attribute` and Jinja's escaping, as all text of the page
does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from curation.page.numbers import compact
from curation.page.text import attribute

NARROW = (340, 220)
WIDE = (1040, 300)
POINTS = 240
STYLES = ("after", "before", "third", "fourth")
"""Classes of the first, second, ... line of a chart."""

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 36
_ROOM = 34  # pixels between ticks

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One line: a value at each step, its own or the mean over neighbours (``low`` to ``high``)."""

    label: str
    x: Floats
    y: Floats
    low: Floats
    high: Floats
    each: int

    @classmethod
    def of(cls, label: str, x: Sequence[float], y: Sequence[float], points: int = POINTS) -> Line:
        """Thins to at most ``points`` values, each the mean of ``each`` neighbours (the last of fewer)."""
        steps, values = np.array(x, np.float64), np.array(y, np.float64)
        each = max(1, math.ceil(len(values) / points))
        starts = np.arange(0, len(values), each)
        count = np.diff(starts, append=len(values))
        if each == 1:
            return cls(label, steps, values, values, values, 1)
        return cls(
            label,
            np.add.reduceat(steps, starts) / count,
            np.add.reduceat(values, starts) / count,
            np.minimum.reduceat(values, starts),
            np.maximum.reduceat(values, starts),
            each,
        )


@dataclass(frozen=True)
class Level:
    """A value to compare with, as a dashed line."""

    value: float
    label: str


@dataclass(frozen=True)
class Mark:
    """An event at a step: `continued` is a line, any other kind a small sign at the foot."""

    step: float
    kind: str


@dataclass(frozen=True)
class Chart:
    """What is drawn; ``name`` becomes part of element ids: ASCII letters, digits, "-"."""

    name: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    level: Level | None = None
    marks: tuple[Mark, ...] = ()

    @property
    def description(self) -> str:
        """What a reader who cannot see it is told."""
        said = []
        for line in self.lines:
            if len(line.y):
                said.append(
                    f"{line.label}: {line.y[0]:.4g} at step {line.x[0]:,.0f}, "
                    f"{line.y[-1]:.4g} at step {line.x[-1]:,.0f}, "
                    f"least {line.low.min():.4g}, most {line.high.max():.4g}."
                )
        if self.level:
            said.append(f"Dashed: {self.level.label} = {self.level.value:.4g}.")
        return " ".join(said)

    def svg(self, wide: bool = False) -> Markup:
        """The chart, of the shape for a phone or of the one for a desktop."""
        return _Drawing(
            self, *(WIDE if wide else NARROW), f"{self.name}-{'w' if wide else 'n'}"
        ).svg()


class _Drawing:
    """A chart in pixels."""

    def __init__(self, chart: Chart, width: int, height: int, name: str) -> None:
        self.chart, self.width, self.height, self.name = chart, width, height, name
        lines = [line for line in chart.lines if len(line.y)]
        self.lines = lines
        first = min(line.x[0] for line in lines)
        self.x = _Axis(
            first, max(max(line.x[-1] for line in lines), first + 1), LEFT, width - RIGHT
        )
        low = min(line.low.min() for line in lines)
        high = max(line.high.max() for line in lines)
        if chart.level:
            low, high = min(low, chart.level.value), max(high, chart.level.value)
        largest = max(abs(low), abs(high))
        # 4e-4 is told as 4 with the power at the axis.
        self.power = math.floor(math.log10(largest)) if 0 < largest < 0.01 else 0
        if 0 <= low < 0.4 * high:
            low = 0.0
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        bottom = low if low == 0 else low - room
        self.y = _Axis(bottom, high + room, height - BOTTOM, TOP)

    def svg(self) -> Markup:
        chart = self.chart
        parts = [
            Markup(
                '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">'
                '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
            ).format(
                self.width, self.height, self.name, self.name,
                self.name, attribute(chart.title), self.name, attribute(chart.description, 900),
            ),
            *self._grid(),
            *self._marks(),
        ]  # fmt: skip
        for number, line in enumerate(self.lines):
            parts.append(self._line(line, STYLES[number % len(STYLES)]))
        if chart.level:
            y = self.y.at(chart.level.value)
            parts.append(
                Markup(
                    '<line class="threshold" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                    '<text class="threshold-label" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
                ).format(
                    LEFT, self.width - RIGHT, y, y,
                    self.width - RIGHT - 3, y - 5 if y > TOP + 16 else y + 14,
                    attribute(f"{chart.level.label} = {chart.level.value:.3f}", 60),
                )
            )  # fmt: skip
        unit = chart.unit + (f" × 10{_superscript(self.power)}" if self.power else "")
        parts.append(
            Markup(
                '<text class="axis" x="{}" y="{}">{}</text>'
                '<text class="axis" x="{}" y="{}" text-anchor="end">step</text></svg>'
            ).format(
                LEFT, self.height - 4, attribute(unit, 60), self.width - RIGHT, self.height - 4
            )
        )
        return Markup("").join(parts)

    def _grid(self) -> list[Markup]:
        parts = []
        for value in self.x.ticks(whole=True):
            x = self.x.at(value)
            parts.append(
                Markup(
                    '<text class="axis" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
                ).format(x, self.height - BOTTOM + 14, compact(value))
            )
        for value in self.y.ticks():
            y = self.y.at(value)
            parts.append(
                Markup(
                    '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                    '<text class="axis" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
                ).format(
                    LEFT, self.width - RIGHT, y, y, LEFT - 5, y + 3.5, _label(value, self.power)
                )
            )
        return parts

    def _marks(self) -> list[Markup]:
        foot = self.height - BOTTOM
        drawn: set[tuple[str, int]] = set()
        parts = []
        for mark in self.chart.marks:
            if not self.x.low <= mark.step <= self.x.high:
                continue
            x = self.x.at(mark.step)
            if (mark.kind, round(x)) in drawn:
                continue  # thousands of checkpoints are as many signs as there are pixels
            drawn.add((mark.kind, round(x)))
            top = TOP if mark.kind == "continued" else foot - 7
            parts.append(
                Markup('<line class="mark {}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                    mark.kind, x, x, top, foot
                )
            )
        return parts

    def _line(self, line: Line, style: str) -> Markup:
        across = [f"{self.x.at(x):.1f}" for x in line.x]

        def points(values: Floats) -> list[str]:
            return [f"{x},{self.y.at(y):.1f}" for x, y in zip(across, values, strict=True)]

        band = Markup("")
        if line.each > 1:
            around = " ".join([*points(line.high), *reversed(points(line.low))])
            band = Markup('<polygon class="band" points="{}"/>').format(around)
        if len(line.y) == 1:
            x, _, y = points(line.y)[0].partition(",")
            return Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(style, x, y)
        return band + Markup('<polyline class="{}" points="{}"/>').format(
            style, " ".join(points(line.y))
        )


@dataclass(frozen=True)
class _Axis:
    """A linear axis from `low` to `high` over the pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, whole: bool = False) -> list[float]:
        """Round numbers, 1, 2 or 5 times a power of ten apart, with room between them."""
        most = max(2.0, abs(self.end - self.start) / (_ROOM * (2 if whole else 1)))
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        apart = power * next(n for n in (1, 2, 5, 10) if n * power >= rough * (1 - 1e-9))
        if whole:
            apart = max(1.0, apart)
        first = math.ceil(self.low / apart - 1e-9)
        last = math.floor(self.high / apart + 1e-9)
        return [n * apart for n in range(first, last + 1)]


def _label(value: float, power: int) -> str:
    scaled = value / 10.0**power
    return compact(scaled) if scaled >= 1e4 else f"{scaled:.4g}"


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
