from __future__ import annotations

import numpy as np
import pytest

from dataflows.report import after, estimates
from dataflows.report.balance import entry_counts
from dataflows.report.source import open_run
from tests.dataflows.report.build import Builder
from tests.dataflows.report.conftest import Make


def test_counted_is_what_the_curated_rows_hold(hostile: Builder) -> None:
    run = open_run(hostile.root.url)
    counts = entry_counts(run, ["en", "ja"])
    found = after.after(run, counts)
    rows = hostile.table("curated").to_pylist()
    for key, known in counts.items():
        for entry, count in zip(known.entries, found.counts[key], strict=True):
            assert count == sum(r["metadata"] == key and entry in r["entries"] for r in rows)
    assert "counted" in found.note


@pytest.mark.parametrize("mode", ["image", "text"])
def test_estimated_from_a_complete_sample_is_the_expectation(
    make: Make, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after, "COUNTED_ROWS", 0)
    builder = make(plain=24, mode=mode)
    run = open_run(builder.root.url)
    counts = entry_counts(run, ["en"])
    found = after.after(run, counts)
    rows = [r for r in builder.table("matched").to_pylist() if r["metadata"] == "en"]
    share = {"image": lambda r: r["keep_probability"] / r["image_texts"],
             "text": lambda r: r["keep_probability"]}[mode]  # fmt: skip
    expected = [
        sum(share(row) for row in rows if entry in row["entries"]) for entry in counts["en"].entries
    ]
    np.testing.assert_allclose(found.counts["en"], expected, rtol=1e-12)
    assert "estimated" in found.note


def test_the_knob_agrees_with_the_run_at_its_own_p(hostile: Builder) -> None:
    found = estimates.knob(open_run(hostile.root.url))
    assert found is not None
    [own] = [row for row in found.rows if row.own]
    stats = hostile.open("matched").manifest.stats
    assert own.p == 0.06
    assert own.expected == pytest.approx(stats["total"]["expected"])
    assert own.low <= hostile.open("curated").manifest.rows <= own.high
    sizes = [row.expected for row in sorted(found.rows, key=lambda row: row.p)]
    assert sizes == sorted(sizes)


def test_a_large_sample_is_left_to_the_command(
    hostile: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "PAGE_ROWS", 10)
    assert estimates.knob(open_run(hostile.root.url)) is None
