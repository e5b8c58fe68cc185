"""Head and tail: thresholds, rank-count curves and entries, before and after the draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.page.names import language_name
from curation.page.numbers import decimal, percent, share, whole
from dataflows.report import after as draws
from dataflows.report.entries import entry_texts
from dataflows.report.figures import RankCurve, rank_count_svg
from dataflows.report.model import Balance, BalanceRow, EntryRow, Panel
from dataflows.report.source import Run

PANELS = 12
HEAD_ENTRIES = 8
TAIL_ENTRIES = 12


@dataclass(frozen=True)
class EntryCounts:
    """Counted entries of one language: ascending ids, counts > 0 and probabilities."""

    entries: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint64]
    probabilities: npt.NDArray[np.float64]


def balance(run: Run) -> Balance | None:
    """The section's facts; None for a run without thresholds."""
    stats: Mapping[str, Any] = run.stats.get("balance", {})
    found: Mapping[str, Any] = stats.get("languages") or {}
    if not found:
        return None
    matched = run.stats.get("matched", {})
    curated = run.stats.get("curated", {}).get("languages")
    rows = [
        _row(key, facts, stats, matched.get("languages", {}), curated)
        for key, facts in found.items()
    ]
    rows.sort(key=lambda row: (-row.matches, row.key))
    shown = [row for row in rows if row.matches][:PANELS]
    counts = entry_counts(run, [row.key for row in shown])
    after = draws.after(run, counts)
    panels = tuple(
        _panel(run, number, row, counts[row.key], after.counts.get(row.key))
        for number, row in enumerate(shown)
        if row.key in counts
    )
    p = stats.get("p")
    return Balance(
        rows=tuple(rows),
        panels=panels,
        after=after.what if panels else "",
        after_note=after.note,
        lede=_lede(stats, rows),
        note=_note(matched, curated, p),
        shared=stats.get("threshold") == "shared",
    )


def entry_counts(run: Run, keys: list[str]) -> dict[str, EntryCounts]:
    """Counts and probabilities of the named languages; reads their row groups, without texts."""
    parts: dict[str, list[pa.Table]] = {}
    columns = ["metadata", "entry", "count", "probability"]
    for table in run.tables_of("balance", "metadata", keys, columns):
        for key in pc.unique(table["metadata"]).to_pylist():
            if key in keys:
                rows = table.filter(pc.equal(table["metadata"], key))
                parts.setdefault(key, []).append(rows.select(columns[1:]))
    found = {}
    for key, tables in parts.items():
        whole_table = pa.concat_tables(tables)
        found[key] = EntryCounts(
            whole_table["entry"].to_numpy(),
            whole_table["count"].to_numpy(),
            whole_table["probability"].to_numpy(),
        )
    return found


def _row(
    key: str,
    facts: Mapping[str, Any],
    stats: Mapping[str, Any],
    matched: Mapping[str, Any],
    curated: Mapping[str, Any] | None,
) -> BalanceRow:
    p, tail = stats.get("p"), facts.get("tail")
    moments = matched.get(key, {})
    expected, variance = moments.get("expected"), moments.get("variance")
    return BalanceRow(
        key=key,
        entries=facts.get("entries"),
        hit=facts["hit"],
        matches=facts["matches"],
        t=facts["t"],
        tail=tail,
        gap=None if p is None or tail is None else abs(tail - p),
        expected=expected,
        deviation=None if variance is None else math.sqrt(variance),
        drawn=None if curated is None else int(curated.get(key, {}).get("texts", 0)),
    )


def _panel(
    run: Run, number: int, row: BalanceRow, counts: EntryCounts, after: np.ndarray | None
) -> Panel:
    order = np.argsort(counts.counts, kind="stable")[::-1]
    head = order[:HEAD_ENTRIES]
    below = order[counts.counts[order] < row.t]
    picks = np.unique(np.linspace(0, below.size - 1, TAIL_ENTRIES).astype(np.int64))
    tail = below[picks] if below.size else below
    texts = entry_texts(run, row.key, counts.entries[np.concatenate([head, tail])])
    most = float(counts.counts[head[0]])
    rows = []
    for i in head:
        kept = None if after is None else float(after[i])
        rows.append(
            EntryRow(
                texts[int(counts.entries[i])],
                int(counts.counts[i]),
                kept,
                100.0 * float(counts.counts[i]) / most,
                0.0 if kept is None else 100.0 * kept / most,
            )
        )
    name = language_name(row.key)
    caption = f"{whole(row.hit)} entries occur, {whole(row.matches)} matches; " + (
        f"entries below t\u202f=\u202f{whole(row.t)} hold {percent(row.tail)}."
        if below.size
        else f"t\u202f=\u202f{whole(row.t)}, so no entry counts as tail."
    )
    if after is not None:
        caption += f" After the draw {whole(int(np.count_nonzero(after)))} still occur."
    description = f"Counts of {name} entries by rank, on logarithmic axes. {caption}"
    svg = rank_count_svg(
        RankCurve.of(counts.counts),
        None if after is None else RankCurve.of(after),
        row.t,
        f"{name}: counts by rank",
        description,
        f"plot-{number}",
    )
    chips = tuple((texts[int(counts.entries[i])], int(counts.counts[i])) for i in tail)
    return Panel(row.key, svg, caption, tuple(rows), chips)


def _lede(stats: Mapping[str, Any], rows: list[BalanceRow]) -> str:
    p = stats.get("p")
    if p is None:
        return ""
    english = next((row for row in rows if row.key == "en"), None)
    if stats.get("threshold") == "shared":
        start = (
            f"One threshold, t\u202f=\u202f{whole(stats['t_en'])}, was used for every language "
            "(threshold=shared): "
            "the smaller a language, the larger the share of its matches that counts as tail."
        )
    elif english is not None:
        start = (
            f"In English, entries with fewer than {whole(english.t)} matches are the tail; they "
            f"hold {percent(english.tail)} of all matches. Every other language gets the threshold "
            f"at which its own tail holds nearest to p\u202f=\u202f{percent(p)}."
        )
    else:
        start = f"Every language gets the threshold whose tail is nearest to p\u202f=\u202f{percent(p)}."
    gaps = [row for row in rows if row.gap is not None and row.t > 1]
    if gaps and stats.get("threshold") != "shared":
        worst = max(gaps, key=lambda row: row.gap or 0.0)
        start += (
            f" Where t is above 1, the tail mass is within {decimal(worst.gap or 0.0)} of p "
            f"({language_name(worst.key)} is furthest)."
        )
    ones = sum(1 for row in rows if row.t <= 1)
    if ones:
        start += f" {ones} of {len(rows)} languages are too small for a tail (t\u202f=\u202f1)."
    return (
        start + " Pairs with a tail entry are never thinned; the others are, the more so the more "
        "common their entries."
    )


def _note(matched: Mapping[str, Any], curated: Mapping[str, Any] | None, p: float | None) -> str:
    parts = []
    if p is not None:
        parts.append(f"p\u202f=\u202f{decimal(p, 6)}.")
    total = matched.get("total", {})
    expected, variance = total.get("expected"), total.get("variance")
    if expected is not None:
        deviation = math.sqrt(variance or 0.0)
        text = f"Expected over all languages: {whole(expected)} ± {whole(deviation)} pairs"
        if curated is not None:
            drawn = sum(int(n["texts"]) for n in curated.values())
            sigma = share(drawn - expected, deviation)
            text += f", drawn: {whole(drawn)}"
            text += "" if sigma is None else f" ({sigma:+.1f} standard deviations)"
        parts.append(text + ".")
    parts.append(
        "Expected is the sum of the pairs' keep probabilities, known before the draw; ± is one "
        "standard deviation."
    )
    return " ".join(parts)
