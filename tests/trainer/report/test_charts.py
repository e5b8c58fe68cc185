from __future__ import annotations

import numpy as np
import pytest

from tests.page.html import parse
from trainer.report.charts import BOTTOM, LEFT, NARROW, RIGHT, TOP, Chart, Level, Line, Mark


def chart(x: list[float], y: list[float], **more: object) -> Chart:
    return Chart("c", "a <title>", "unit", (Line.of("l", x, y),), **more)  # type: ignore[arg-type]


def test_a_thinned_line_is_the_mean_of_neighbours_with_their_limits() -> None:
    x = np.arange(1.0, 1002.0)
    y = np.random.default_rng(0).normal(size=1001)
    line = Line.of("l", x.tolist(), y.tolist(), 240)
    assert line.each == 5 and len(line.y) == 201
    for place in (0, 7, 200):
        part = slice(5 * place, 5 * place + 5)
        assert line.x[place] == x[part].mean()
        assert line.y[place] == pytest.approx(y[part].mean())
        assert (line.low[place], line.high[place]) == (y[part].min(), y[part].max())
    drawn = parse(str(chart(x.tolist(), y.tolist()).svg()))
    assert len(drawn.one("polygon", cls="band").attributes["points"].split()) == 402


def test_points_lie_where_the_ticks_say() -> None:
    """Pixels are read back by the labels of the axes."""
    x, y = [0.0, 10.0, 37.0, 100.0], [2.0, 3.5, 2.75, 5.0]
    svg = parse(str(chart(x, y).svg()))
    labels = list(svg.all("text", cls="axis"))
    across = [(float(e.text), float(e.attributes["x"])) for e in labels if _middle(e)]
    up = [
        (float(e.text), float(e.attributes["y"]) - 3.5)
        for e in labels
        if _number(e) and not _middle(e)
    ]
    x_of = np.poly1d(np.polyfit(*np.array([(p, v) for v, p in across]).T, 1))
    y_of = np.poly1d(np.polyfit(*np.array([(p, v) for v, p in up]).T, 1))
    points = [p.split(",") for p in svg.one("polyline").attributes["points"].split()]
    assert [x_of(float(p[0])) for p in points] == pytest.approx(x, abs=0.3)
    assert [y_of(float(p[1])) for p in points] == pytest.approx(y, abs=0.03)


def _middle(element: object) -> bool:
    return element.attributes.get("text-anchor") == "middle"  # type: ignore[attr-defined]


def _number(element: object) -> bool:
    return element.text.replace(".", "").isdigit()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([5.0], [1.0]),
        ([1.0, 2.0], [0.0, 0.0]),
        ([1.0, 2.0], [7.0, 7.0]),
        ([1.0, 1e9], [-1e-12, 1e300]),
        ([1.0, 2.0], [-3.0, -5.0]),
        ([1.0, 2.0], [1e-7, 4e-7]),
    ],
)
def test_any_values_stay_inside_the_axes(x: list[float], y: list[float]) -> None:
    for wide in (False, True):
        text = str(chart(x, y).svg(wide))
        assert "nan" not in text and "inf" not in text
        width, height = (1040, 300) if wide else NARROW
        svg = parse(text)
        points = [p for e in svg.all("polyline") for p in e.attributes["points"].split()]
        points += [f"{e.attributes['cx']},{e.attributes['cy']}" for e in svg.all("circle")]
        assert points
        for point in points:
            left, top = map(float, point.split(","))
            assert LEFT <= left <= width - RIGHT and TOP - 1 <= top <= height - BOTTOM + 1


def test_small_values_are_told_with_a_power_of_ten() -> None:
    text = parse(str(chart([1, 2], [1e-4, 4e-4]).svg())).text
    assert "unit × 10⁻⁴" in text and "e-" not in text.replace("a <title>", "").split("×")[1]


def test_marks_outside_are_left_out_and_many_are_as_many_as_pixels() -> None:
    marks = tuple(Mark(step, "saved") for step in range(100_000))
    svg = chart([10, 90_000], [1, 2], marks=marks, level=Level(1.5, "a <b>level</b>")).svg()
    drawn = list(parse(str(svg)).all("line", cls="saved"))
    assert len(drawn) <= NARROW[0] - LEFT - RIGHT + 1
    assert "<b>" not in str(svg) and "<title>" not in str(svg)
    assert "a &lt;title&gt;" in str(svg) and "a &lt;b&gt;level&lt;/b&gt; = 1.500" in str(svg)


@pytest.mark.parametrize(
    ("y", "zero"), [([9.0, 2.0], True), ([9.0, 8.0], False), ([-1.0, 8.0], False)]
)
def test_an_axis_begins_at_zero_only_where_values_come_near(y: list[float], zero: bool) -> None:
    """A loss from 4.5 to 3.4 would be a flat line above an axis from zero."""
    svg = parse(str(chart([1.0, 2.0], y).svg()))
    foot = NARROW[1] - BOTTOM
    at_foot = [
        e.text
        for e in svg.all("text", cls="axis")
        if abs(float(e.attributes["y"]) - foot - 3.5) < 0.1
    ]
    assert ("0" in at_foot) == zero
