"""The page: one HTML file without a script and without a request."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dataflows.report import numbers, text
from dataflows.report.gather import gather
from dataflows.report.model import Report
from dataflows.report.names import language_name
from dataflows.report.source import open_run

VISIBLE = 14
"""Rows of a language table that are shown at once; the rest unfolds."""


def report(location: str) -> str:
    """The HTML page about the run (or dataset) at `location`; the same datasets give the same page.

    Raises InputError if nothing committed is there, IntegrityError for a damaged dataset.
    """
    return render(gather(open_run(location)))


def render(facts: Report) -> str:
    """HTML of gathered facts. Everything that is not `Markup` made by this package is escaped."""
    css = files("dataflows.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    page = _environment().get_template("report.html")
    return page.render(report=facts, css=Markup(css), sections=_sections(facts), visible=VISIBLE)


def _sections(facts: Report) -> list[tuple[str, str]]:
    sections = [("warnings", "Before you use it"), ("funnel", "Funnel")]
    if facts.languages:
        sections.append(("languages", "Languages"))
    if facts.balance:
        sections.append(("balance", "Head and tail"))
        sections.append(("h-thresholds", "Thresholds"))
    if facts.fetching:
        sections.append(("fetching", "Fetching"))
    if facts.samples or facts.left_out or facts.dead:
        sections.append(("samples", "Pairs"))
    return [*sections, ("safety", "Safety"), ("lineage", "Lineage")]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dataflows.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def or_dash(show):  # type: ignore[no-untyped-def]
        return lambda value, *rest: (
            Markup('<span class="soft">n/a</span>') if value is None else show(value, *rest)
        )

    environment.filters.update(
        page=text.page,
        attribute=text.attribute,
        tag=text.language_tag,
        dir=text.direction,
        language_name=language_name,
        whole=or_dash(numbers.whole),
        decimal=or_dash(numbers.decimal),
        percent=or_dash(numbers.percent),
        size=numbers.size,
        share=numbers.share,
        units=lambda unit: "entries" if unit == "entry" else f"{unit}s",
        short=lambda digest: text.attribute(digest, 1000)[:12],
    )
    return environment
