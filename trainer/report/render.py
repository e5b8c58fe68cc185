"""The page: one HTML file without a script and without a request."""

from __future__ import annotations

from importlib.resources import files

from markupsafe import Markup

from curation.page.environment import environment, style_sheet
from trainer.report.charts import STYLES
from trainer.report.gather import gather
from trainer.report.model import Report
from trainer.report.record import read
from trainer.report.scores import limits, shown

VISIBLE = 14
"""Rows of a language table that are shown at once; the rest unfolds."""


def report(location: str) -> str:
    """The HTML page about the run directory at ``location``; the same files give the same page.

    Raises InputError if it is no run directory.
    """
    return render(gather(read(location)))


def render(facts: Report) -> str:
    """HTML of gathered facts. Everything that is not `Markup` made by this package is escaped."""
    own = files("trainer.report").joinpath("templates/training.css").read_text(encoding="utf-8")
    made = environment("trainer.report")
    made.filters |= {"shown": shown, "limits": limits}
    return made.get_template("training.html").render(
        report=facts,
        css=style_sheet() + Markup("\n") + Markup(own),
        sections=_sections(facts),
        visible=VISIBLE,
        details_name="All of them",
        styles=STYLES,
        scores_name=_scores_name(facts),
    )


def _scores_name(facts: Report) -> str:
    return "Scores" if any(not one.what for one in facts.evaluations) else "Accuracy"


def _sections(facts: Report) -> list[tuple[str, str]]:
    sections = [("warnings", "Before you use it"), ("curves", "Loss")]
    sections.append(("accuracy", _scores_name(facts)))
    if any(one.examples for one in facts.evaluations):
        sections.append(("examples", "Retrieval examples"))
    return [*sections, ("speed", "Throughput"), ("origin", "How to make it again")]
