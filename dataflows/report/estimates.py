"""What another p or t would give, for the page and for the command `what-if`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from curation.metaclip2.counts import LanguageCounts, by_language
from curation.metaclip2.whatif import Estimate, estimate
from dataflows.report.model import Knob, KnobRow
from dataflows.report.source import Run
from schemas.errors import InputError
from schemas.table_schemas import COUNTS, SAMPLE

NEEDED = ("automata", "counts", "sample", "balance")
CHOICES = (0.01, 0.03, 0.06, 0.1, 0.2)
PAGE_ROWS = 1_000_000
"""The page estimates from samples of at most so many rows; the command from any."""


def estimates(run: Run, p: Sequence[float], t_en: Sequence[int]) -> list[Estimate]:
    """One estimate for each p, then each t_en, in the mode of the run.

    Cost: the whole counts and sample are read (at most 200k rows a language). Raises InputError if
    a dataset of NEEDED is not there, UsageError for values that no threshold fits.
    """
    missing = [name for name in NEEDED if run.get(name) is None]
    if missing:
        raise InputError(
            f"{run.root.url} has no {', '.join(missing)}: an estimate needs {', '.join(NEEDED)} "
            "of a metaclip2 run; give its output="
        )
    sizes: dict[str, int] = {}
    for table in run.tables("automata", ["metadata", "entries"]):
        sizes.update(zip(table["metadata"].to_pylist(), table["entries"].to_pylist(), strict=True))
    counted = pa.concat_tables([COUNTS.empty(), *run.tables("counts")])
    counts: dict[str, LanguageCounts] = by_language(counted)
    sample = pa.concat_tables([SAMPLE.empty(), *run.tables("sample")])
    stats = run.stats["balance"]
    return estimate(
        counts,
        sizes,
        sample,
        _totals(run),
        p=list(p),
        t_en=list(t_en),
        mode=stats.get("mode") or "image",
        threshold=stats.get("threshold", "language"),
        isolation=stats.get("isolation", True),
    )


def knob(run: Run) -> Knob | None:
    """A few choices of p for the page, the run's own among them; None if not to be had."""
    sample = run.get("sample")
    own = run.stats.get("balance", {}).get("p")
    if any(run.get(name) is None for name in NEEDED) or sample is None or not own:
        return None
    if not 0 < sample.manifest.rows <= PAGE_ROWS:
        return None
    choices = sorted({own, *(p for p in CHOICES if abs(p - own) > 0.003)})
    rows = []
    for p, found in zip(choices, estimates(run, choices, ()), strict=True):
        english = found.languages.get("en")
        rows.append(
            KnobRow(
                p=p,
                own=p == own,
                t_en=found.t_en,
                expected=found.expected,
                low=found.low,
                high=found.high,
                english=english.share if english else None,
                languages=sum(1 for language in found.languages.values() if language.t > 1),
            )
        )
    return Knob(tuple(rows), max(row.high for row in rows))


def _totals(run: Run) -> dict[str, int]:
    """Texts that were counted, by language: what `sample` was taken from."""
    matched = run.stats.get("matched", {}).get("languages")
    if matched:
        return {key: int(n["texts"]) for key, n in matched.items()}
    found = run.stats.get("matches", {}).get("languages", {})
    return {key: int(n["matched"]) for key, n in found.items() if n["matched"]}
