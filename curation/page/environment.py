"""Jinja as the report pages use it: everything is escaped, nothing may be undefined."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from curation.page import numbers, text
from curation.page.names import language_name


def environment(package: str) -> Environment:
    """Templates of ``package`` (its folder `templates`) on those here, with the filters of all pages.

    What is not `Markup` made by a page's own code is escaped.
    """
    made = Environment(
        loader=ChoiceLoader(
            [PackageLoader(name, "templates") for name in (package, "curation.page")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def or_dash(show):  # type: ignore[no-untyped-def]
        return lambda value, *rest: (
            Markup('<span class="soft">n/a</span>') if value is None else show(value, *rest)
        )

    made.filters.update(
        page=text.page,
        document=text.document,
        attribute=text.attribute,
        tag=text.language_tag,
        dir=text.direction,
        language_name=language_name,
        whole=or_dash(numbers.whole),
        decimal=or_dash(numbers.decimal),
        percent=or_dash(numbers.percent),
        size=numbers.size,
        share=numbers.share,
        short=lambda digest: text.attribute(digest, 1000)[:12],
    )
    return made


def style_sheet() -> Markup:
    """The CSS of all pages, for a `style` element."""
    return Markup(files("curation.page").joinpath("page.css").read_text(encoding="utf-8"))
