"""The page in a real browser: nothing runs, nothing is requested, nothing overflows, scripts are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflows.report.render import report
from tests.dataflows.report import hostile as captions
from tests.dataflows.report.build import Builder
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(few: Builder, hostile_page: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A page with every hostile caption on it, and a larger one."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {"few.html": report(few.root.url), "many.html": hostile_page}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


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


def test_scripts_in_captions_are_inert(browser: Browser, pages: list[Path]) -> None:
    check_inert(browser, pages[0])
    assert browser.driver.title.startswith("MetaCLIP 2")
    shown = browser.run("[...document.querySelectorAll('.caption')].map(e => e.textContent)")
    for caption in (captions.SCRIPT, captions.HANDLER, captions.SVG, captions.ENTITY):
        assert caption in shown


def test_right_to_left_captions_run_from_the_right(browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[0], 1280)
    for caption in (captions.ARABIC, captions.ARABIC_BRAND, captions.HEBREW):
        box = caption_box(browser, caption)
        assert box["direction"] == "rtl"
        # The text begins at the right edge and, being short of the line, not at the left one.
        assert abs(box["lineRight"] - box["right"]) < 2
        assert box["lineLeft"] > box["left"] + 5
    # The brand at the beginning stands rightmost.
    box = caption_box(browser, captions.ARABIC_BRAND)
    assert box["wordRight"] == pytest.approx(box["right"], abs=2)


def test_left_to_right_ones_stay_so_beside_an_override(browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[0], 1280)
    shown = browser.run(
        "[...document.querySelectorAll('.caption')].map(e => e.textContent)"
        ".filter(t => t.startsWith('the terrier'))"
    )
    assert shown == ["the terrier saves U+202Egpj.exeU+202C and U+2066moreU+2069"]
    order = browser.run(
        "(() => {const e = [...document.querySelectorAll('.caption')]"
        ".find(e => e.textContent.startsWith('the terrier'));"
        "const node = [...e.childNodes].find(n => n.textContent == 'gpj.exe');"
        "const at = i => {const r = document.createRange(); r.setStart(node, i);"
        " r.setEnd(node, i + 1); return r.getBoundingClientRect().left};"
        "return [at(0), at(3), at(6)]})()"
    )
    assert order == sorted(order)  # g before . before e: the override overrode nothing


def test_cjk_captions_have_glyphs(browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[0], 1280)
    for caption in (captions.JAPANESE, captions.CHINESE):
        box = caption_box(browser, caption)
        assert box["direction"] == "ltr"
        # Ideographs are as wide as the type is high.
        assert box["firstWidth"] == pytest.approx(box["size"], rel=0.15)
    assert caption_box(browser, captions.JAPANESE)["lang"] == "ja"
    assert caption_box(browser, captions.CHINESE)["lang"] == "zh"


def test_a_hundred_thousand_characters_do_not_stretch_a_card(
    browser: Browser, pages: list[Path]
) -> None:
    browser.open(pages[0], 390)
    heights = browser.run(
        "[...document.querySelectorAll('.card')].map(e => [e.offsetHeight, e.scrollWidth, e.offsetWidth])"
    )
    assert len(heights) >= 14
    for height, inner, outer in heights:
        assert height < 700
        assert inner <= outer


def test_contrast_of_text(browser: Browser, pages: list[Path]) -> None:
    check_contrast(browser, pages[0])
