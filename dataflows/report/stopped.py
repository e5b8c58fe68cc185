"""A run that its gate stopped: documents share text with an evaluation set, and none may."""

from __future__ import annotations

from curation.page.numbers import whole
from dataflows.report.model import Alert, Change, Flow
from dataflows.report.source import Run
from schemas.reasons import REASONS

STAGE, REASON = "contamination", "contaminated"


def refused(run: Run) -> int:
    """Documents for which on_contamination=fail stopped the run; 0 if it did not.

    The gate commits nothing, so this is told by what is there: findings, nothing made with them, and
    a command that does not ask to drop them.
    """
    found = run.get(STAGE)
    if found is None or run.head != "documents":
        return 0
    for dataset in run.datasets.values():
        for parent in dataset.manifest.parents:
            if (parent["name"], parent["digest"]) == (STAGE, found.manifest.digest):
                return 0
    if "on_contamination=drop" in str(found.manifest.run.get("command", "")):
        return 0
    return int(found.manifest.stats.get("documents", 0))


def alerts(run: Run) -> tuple[Alert, ...]:
    """The gate's refusal with its count, the sets, and what to do."""
    count = refused(run)
    if not count:
        return ()
    stats = run.stats[STAGE].get("evaluations", {})
    sets = ", ".join(f"{whole(n)} with {name}" for name, n in sorted(stats.items()))
    rows = whole(run.datasets["documents"].manifest.rows)
    return (
        Alert(
            STAGE,
            f"{whole(count)} of {rows} documents share text with evaluation sets ({sets}), and no "
            "tokens were made: on_contamination=fail, the default, stops a run for that. Take them out "
            "of the input, or run again with on_contamination=drop, which leaves them out.",
            found=True,
        ),
    )


def flow(run: Run) -> tuple[Flow, ...]:
    """The documents that were found, as a stage that rejects them; none if the gate did not stop."""
    count = refused(run)
    if not count:
        return ()
    rows = run.datasets["documents"].manifest.rows
    change = Change("rejected", REASON, REASONS[REASON], count)
    return (Flow(STAGE, "document", rows, rows - count, (change,), "", False, "documents"),)
