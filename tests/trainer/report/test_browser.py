"""The page in a real browser: nothing runs, nothing is requested, nothing overflows, scripts are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page import texts
from tests.page.browser import (
    WIDTHS,
    Browser,
    browsing,
    caption_box,
    check_contrast,
    check_inert,
    check_inside,
    check_quiet,
)
from tests.trainer.report import runs
from trainer.report.render import report


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(data: Path, text: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The page of a finished run, and of one that has only begun."""
    folder = tmp_path_factory.mktemp("pages")
    begun = runs.written(folder / "begun", data, [])
    (folder / "finished.html").write_text(text, encoding="utf-8")
    (folder / "begun.html").write_text(report(str(begun)), encoding="utf-8")
    return [folder / "finished.html", folder / "begun.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_console_line_no_request_no_sideways_scroll(
    browser: Browser, pages: list[Path], width: int, scheme: str
) -> None:
    for page in pages:
        check_quiet(browser, page, width, scheme)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_pokes_out_of_the_window(browser: Browser, pages: list[Path], width: int) -> None:
    for page in pages:
        check_inside(browser, page, width)


def test_scripts_in_texts_are_inert(browser: Browser, pages: list[Path]) -> None:
    check_inert(browser, pages[0])
    assert browser.driver.title.startswith("tiny <script>document.title=")
    shown = browser.run("[...document.querySelectorAll('.caption')].map(e => e.textContent)")
    for caption in (texts.SCRIPT, texts.HANDLER, texts.SVG, texts.ENTITY):
        assert caption in shown


def test_prompts_run_in_their_own_direction(browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[0], 1280)
    for caption in (texts.ARABIC, texts.ARABIC_BRAND, texts.HEBREW):
        box = caption_box(browser, caption)
        assert box["direction"] == "rtl"
        assert abs(box["lineRight"] - box["right"]) < 2
        assert box["lineLeft"] > box["left"] + 5
    for caption, language in ((texts.JAPANESE, "ja"), (texts.CHINESE, "zh")):
        box = caption_box(browser, caption)
        assert (box["direction"], box["lang"]) == ("ltr", language)
        assert box["firstWidth"] == pytest.approx(box["size"], rel=0.15)  # as wide as high: a glyph


def test_contrast_of_text(browser: Browser, pages: list[Path]) -> None:
    check_contrast(browser, pages[0])


@pytest.mark.parametrize("width", WIDTHS)
def test_one_loss_chart_is_seen_and_its_marks_lie_where_they_should(
    browser: Browser, pages: list[Path], width: int
) -> None:
    browser.open(pages[0], width)
    seen = browser.run(
        "[...document.querySelectorAll('#curves .for-wide svg, #curves .for-narrow svg')]"
        ".map(e => e.getBoundingClientRect().width > 1)"
    )
    assert seen == [width == 1280, width == 390]
    # The dashed line lies where the curve crosses ln(64): above its end, below its beginning.
    y = browser.run(
        "(() => {const svg = [...document.querySelectorAll('#curves svg')]"
        ".find(e => e.getBoundingClientRect().width > 1);"
        "const level = svg.querySelector('.threshold').getBoundingClientRect().top;"
        "const points = [...svg.querySelector('polyline.after').points];"
        "const at = p => p.matrixTransform(svg.getScreenCTM()).y;"
        "return [at(points[0]), level, at(points.at(-1))]})()"
    )
    assert y == sorted(y)
