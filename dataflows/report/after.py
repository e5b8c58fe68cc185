"""How often each entry occurs after the draw: counted or, in a large set, estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.metaclip2.probabilities import Probabilities, keep_probability
from curation.page.numbers import whole
from dataflows.report.source import Run

if TYPE_CHECKING:
    from dataflows.report.balance import EntryCounts

Floats = npt.NDArray[np.float64]

COUNTED_ROWS = 2_000_000
"""Largest curated set that is counted (two columns are read); above it, estimates."""


@dataclass(frozen=True)
class After:
    """`counts` {language: float64[n]}; `what` names the line, `note` says how it was made."""

    counts: dict[str, Floats]
    what: str
    note: str


def after(run: Run, counts: Mapping[str, EntryCounts]) -> After:
    """Counts per entry after the draw of `curated`, for the languages of `counts`."""
    curated = run.get("curated")
    if curated is not None and curated.manifest.rows <= COUNTED_ROWS:
        note = f"After: counted in the {whole(curated.manifest.rows)} rows of the curated set."
        return After(_counted(run, counts), "texts of the curated set that match it", note)
    if run.get("sample") is not None and run.get("matched") is not None:
        found, rows = _estimated(run, counts)
        why = "no draw was made yet"
        if curated is not None:
            why = "the curated set is too large to be counted for a page"
        note = f"After: expected, estimated from {whole(rows)} sampled texts; {why}."
        return After(found, "expected after the draw (from the sample)", note)
    return After({}, "", "")


def _counted(run: Run, counts: Mapping[str, EntryCounts]) -> dict[str, Floats]:
    found = {key: np.zeros(len(c.entries)) for key, c in counts.items()}
    for table in run.tables("curated", ["metadata", "entries"]):
        for key in found:
            _add(found[key], counts[key], table.filter(pc.equal(table["metadata"], key)), None)
    return found


def _add(total: Floats, counts: EntryCounts, rows: pa.Table, weight: Floats | None) -> None:
    """Add each row's weight (1 without) to the places of its entries."""
    lists = rows["entries"].combine_chunks()
    if not len(lists):
        return
    values = lists.flatten().to_numpy()
    at = np.searchsorted(counts.entries, values)
    at[at == len(counts.entries)] = 0
    known = counts.entries[at] == values
    each = None
    if weight is not None:
        each = np.repeat(weight, pc.list_value_length(lists).to_numpy())[known]
    total += np.bincount(at[known], each, minlength=len(counts.entries))


def _estimated(run: Run, counts: Mapping[str, EntryCounts]) -> tuple[dict[str, Floats], int]:
    """Ratio estimate: each entry's exact count times the mean chance of its sampled texts."""
    matched = run.get("matched")
    image_mode = matched is not None and matched.manifest.config.get("mode", "image") == "image"
    kept = {key: np.zeros(len(c.entries)) for key, c in counts.items()}
    seen = {key: np.zeros(len(c.entries)) for key, c in counts.items()}
    chance = {key: [0.0, 0.0] for key in counts}
    rows = 0
    probabilities = Probabilities({k: (c.entries, c.probabilities) for k, c in counts.items()})
    columns = ["metadata", "entries", "image_texts"]
    for table in run.tables_of("sample", "metadata", list(counts), columns):
        for key, known in counts.items():
            part = table.filter(pc.equal(table["metadata"], key))
            if not part.num_rows:
                continue
            rows += part.num_rows
            once = np.ones(part.num_rows)
            if image_mode:
                once = once / part["image_texts"].to_numpy()
            keep = keep_probability(part["metadata"], part["entries"], probabilities) * once
            _add(kept[key], known, part, keep)
            _add(seen[key], known, part, None)
            chance[key][0] += float(once.sum())
            chance[key][1] += part.num_rows
    found = {}
    for key, known in counts.items():
        usual = chance[key][0] / chance[key][1] if chance[key][1] else 1.0
        unseen = known.probabilities * usual
        ratio = np.where(seen[key] > 0, kept[key] / np.maximum(seen[key], 1), unseen)
        found[key] = known.counts.astype(np.float64) * ratio
    return found, rows
