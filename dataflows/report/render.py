"""The page: one HTML file without a script and without a request."""

from __future__ import annotations

from collections.abc import Sequence

from curation.page.environment import environment, style_sheet
from dataflows.report.gather import gather
from dataflows.report.model import Report
from dataflows.report.source import open_run

VISIBLE = 14
"""Rows of a language table that are shown at once; the rest unfolds."""


def report(location: str, datasets: Sequence[str] = ()) -> str:
    """The HTML page about the run (or dataset) at `location`; the same datasets give the same page.

    `datasets` brings in what the run started from, each as NAME=LOCATION. Raises InputError if nothing
    committed is there, IntegrityError for a damaged dataset.
    """
    run = open_run(location)
    run.add_all(datasets)
    return render(gather(run))


def render(facts: Report) -> str:
    """HTML of gathered facts. Everything that is not `Markup` made by this package is escaped."""
    made = environment("dataflows.report")
    made.filters["units"] = lambda unit: "entries" if unit == "entry" else f"{unit}s"
    page = made.get_template("report.html")
    return page.render(report=facts, css=style_sheet(), sections=_sections(facts), visible=VISIBLE)


def _sections(facts: Report) -> list[tuple[str, str]]:
    sections = [("warnings", "Before you use it"), ("funnel", "Funnel")]
    if facts.languages:
        sections.append(("languages", "Languages"))
    if facts.texts:
        sections.append(("texts", "Texts"))
    if facts.balance:
        sections.append(("balance", "Head and tail"))
        sections.append(("h-thresholds", "Thresholds"))
    if facts.fetching:
        sections.append(("fetching", "Fetching"))
    if facts.samples or facts.left_out or facts.dead:
        sections.append(("samples", "Dead letters" if facts.texts else "Pairs"))
    if facts.safety:
        sections.append(("safety", "Safety"))
    return [*sections, ("lineage", "Lineage")]
