from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.page import numbers
from dataflows.report.figures import HEIGHT, WIDTH, RankCurve, rank_count_svg
from tests.page.html import parse

COUNTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=400).map(np.array)


@given(COUNTS)
def test_a_thinned_curve_keeps_order_ends_and_sum(counts: np.ndarray) -> None:
    curve = RankCurve.of(counts, points=20)
    positive = np.sort(counts[counts > 0])[::-1]
    assert curve.rank.size <= 20 or positive.size <= 20
    if not positive.size:
        assert curve.rank.size == 0
        return
    assert np.all(np.diff(curve.rank) > 0) and np.all(np.diff(curve.count) <= 0)
    assert curve.count[0] == positive[0] and curve.rank[0] == 1
    assert curve.rank[-1] <= positive.size
    edges = np.unique(np.geomspace(1, positive.size + 1, 21).astype(int))
    assert np.dot(curve.count, np.diff(edges)) == pytest.approx(positive.sum())


def test_a_curve_of_few_entries_is_every_entry() -> None:
    curve = RankCurve.of(np.array([3, 100, 0, 7]))
    assert curve.rank.tolist() == [1, np.sqrt(2 * 2), 3] and curve.count.tolist() == [100, 7, 3]


@given(COUNTS, st.integers(1, 10**6), st.floats(0, 1))
def test_lines_stay_inside_and_after_is_not_above_before(
    counts: np.ndarray, t: int, kept: float
) -> None:
    counts = counts + 1
    before, after = RankCurve.of(counts), RankCurve.of(counts * kept)
    svg = parse(str(rank_count_svg(before, after, t, "title", "description", "p"))).one("svg")
    lines = {}
    for line in svg.all("polyline"):
        points = [p.split(",") for p in line.attributes["points"].split()]
        xy = np.array(points, float).reshape(-1, 2)
        assert np.all((xy >= 0) & (xy <= [WIDTH, HEIGHT]))
        lines[line.attributes["class"]] = xy
    for element in svg.all("rect"):
        box = [float(element.attributes[name]) for name in ("x", "y", "width", "height")]
        assert box[0] >= 0 and box[0] + box[2] <= WIDTH and box[1] + box[3] <= HEIGHT
    if lines["after"].size:
        assert lines["after"][0, 1] >= lines["before"][0, 1]


def test_the_tail_begins_where_counts_fall_below_t() -> None:
    counts = np.array([1000] * 10 + [5] * 90)
    curve = RankCurve.of(counts)
    svg = parse(str(rank_count_svg(curve, None, 6, "t", "d", "p"))).one("svg")
    tail = svg.one("rect", cls="tail")
    points = svg.one("polyline", cls="before").attributes["points"].split()
    first_below = next(i for i, count in enumerate(curve.count) if count < 6)
    assert tail.attributes["x"] == points[first_below].split(",")[0]
    assert not list(
        parse(str(rank_count_svg(curve, None, 1, "t", "d", "p"))).all("rect", cls="tail")
    )


def test_titles_are_escaped() -> None:
    curve = RankCurve.of(np.array([3, 2, 1]))
    svg = str(rank_count_svg(curve, None, 2, "</title><script>", "<desc>", "p"))
    assert "&lt;/title&gt;&lt;script&gt;" in svg and "<script>" not in svg


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (5, "5"), (999, "999"), (1000, "1k"), (1234, "1.23k"), (170_000, "170k"),
     (5.6e9, "5.6G"), (0.1, "0.1"), (2e12, "2T")],
)  # fmt: skip
def test_compact_numbers(value: float, expected: str) -> None:
    assert numbers.compact(value) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [(None, "n/a"), (0, "0 %"), (1, "100 %"), (0.4412, "44.1 %"), (0.00031, "0.031 %"),
     (0.0000001, "< 0.001 %"), (0.99999, "100.0 %")],
)  # fmt: skip
def test_percentages(share: float | None, expected: str) -> None:
    assert numbers.percent(share).replace("\u202f", " ") == expected


@given(st.floats(1e-12, 1 - 1e-12))
def test_a_decimal_never_hides_a_difference_from_zero(value: float) -> None:
    shown = numbers.decimal(value)
    assert re.fullmatch(r"< 0\.0001|\d\.\d{4}", shown) and shown != "0.0000"


def test_sizes_and_whole_numbers() -> None:
    assert numbers.size(3_359_617) == "3.4 MB" and numbers.size(12) == "12 B"
    assert numbers.size(2e18) == "2000.0 PB"
    assert numbers.whole(1_234_567.4) == "1,234,567"
