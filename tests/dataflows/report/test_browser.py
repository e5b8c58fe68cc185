"""The page in a real browser: nothing runs, nothing is requested, nothing overflows, scripts are right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflows.report.render import report
from tests.dataflows.report import hostile as captions
from tests.dataflows.report.build import Builder
from tests.support import require

WIDTHS = (390, 1280)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-default-apps", "--disable-extensions",
)  # fmt: skip


class Browser:
    """A headless Chromium that records what the page logs and asks for."""

    def __init__(self, chromium: str, driver: str, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        """Load the page at a width; what was logged before is dropped."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._cdp("Emulation.setEmulatedMedia", {"features": [feature]})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri())

    def run(self, script: str) -> Any:
        """The value of a script; DevTools may run one where the page may not."""
        found = self._cdp("Runtime.evaluate", {"expression": script, "returnByValue": True})
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def _cdp(self, command: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return self.driver.execute_cdp_cmd(command, parameters)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = require("chromium")
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("chromedriver is not installed (make system)")
    found = Browser(chromium, driver, tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


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
        browser.open(page, width, scheme)
        assert browser.run("innerWidth") == width
        # Unfolded too: what is hidden at first must fit as well.
        for unfold in ("", "document.querySelectorAll('details').forEach(d => d.open = true)"):
            browser.run(unfold or "0")
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert browser.run("document.body.scrollWidth") <= width
            browser.run("scrollTo(100, 0)")
            assert browser.run("scrollX") == 0
        assert browser.console() == []
        asked = [url for url in browser.requests() if not url.startswith("data:")]
        assert asked == [page.as_uri()]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_pokes_out_of_the_window(browser: Browser, pages: list[Path], width: int) -> None:
    for page in pages:
        browser.open(page, width)
        out = browser.run(
            "[...document.querySelectorAll('main *, header *, footer *')].filter(e => {"
            "  const box = e.getBoundingClientRect();"
            "  return box.width > 1 && !e.closest('.vh') && getComputedStyle(e).clipPath == 'none'"
            f"    && !e.closest('thead') && (box.right > {width} + 1 || box.left < -1);"
            "}).map(e => e.outerHTML.slice(0, 120))"
        )
        assert out == []


def test_scripts_in_captions_are_inert(browser: Browser, pages: list[Path]) -> None:
    page = pages[0]
    browser.open(page, 1280)
    assert browser.run("typeof window.owned") == "undefined"
    assert browser.driver.title.startswith("MetaCLIP 2")
    assert browser.run("document.scripts.length") == 0
    assert browser.run("document.querySelectorAll('[onload], [onerror], [onclick]').length") == 0
    shown = browser.run("[...document.querySelectorAll('.caption')].map(e => e.textContent)")
    for caption in (captions.SCRIPT, captions.HANDLER, captions.SVG, captions.ENTITY):
        assert caption in shown
    # The policy of the page holds even for a script that got in.
    browser.run(
        "{const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
        " document.body.append(s)}"
    )
    assert browser.run("typeof window.owned") == "undefined"


def test_right_to_left_captions_run_from_the_right(browser: Browser, pages: list[Path]) -> None:
    browser.open(pages[0], 1280)
    for caption in (captions.ARABIC, captions.ARABIC_BRAND, captions.HEBREW):
        box = _caption(browser, caption)
        assert box["direction"] == "rtl"
        # The text begins at the right edge and, being short of the line, not at the left one.
        assert abs(box["lineRight"] - box["right"]) < 2
        assert box["lineLeft"] > box["left"] + 5
    # The brand at the beginning stands rightmost.
    box = _caption(browser, captions.ARABIC_BRAND)
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
        box = _caption(browser, caption)
        assert box["direction"] == "ltr"
        # Ideographs are as wide as the type is high.
        assert box["firstWidth"] == pytest.approx(box["size"], rel=0.15)
    assert _caption(browser, captions.JAPANESE)["lang"] == "ja"
    assert _caption(browser, captions.CHINESE)["lang"] == "zh"


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
    """WCAG AA: 4.5 to 1 for every piece of text against what lies behind it, in both schemes."""
    for scheme in ("light", "dark"):
        browser.open(pages[0], 1280, scheme)
        poor = browser.run(_CONTRAST)
        assert poor == []


def _caption(browser: Browser, caption: str) -> dict[str, Any]:
    """Where a caption's box, last line, first letter and first word lie, in pixels."""
    found = browser.run(
        "(() => {const e = [...document.querySelectorAll('.caption')]"
        f".find(e => e.textContent == {json.dumps(caption)});"
        "const box = e.getBoundingClientRect(), style = getComputedStyle(e);"
        "const range = document.createRange(); range.selectNodeContents(e);"
        "const lines = [...range.getClientRects()]; const first = document.createRange();"
        "first.setStart(e.firstChild, 0); first.setEnd(e.firstChild, 1);"
        "const one = first.getBoundingClientRect(); const word = document.createRange();"
        "word.setStart(e.firstChild, 0); word.setEnd(e.firstChild, 4);"
        "return {direction: style.direction, lang: e.lang, left: box.left, right: box.right,"
        " size: parseFloat(style.fontSize), lineLeft: lines.at(-1).left,"
        " lineRight: Math.max(...lines.map(l => l.right)), firstWidth: one.width,"
        " wordRight: word.getBoundingClientRect().right}})()"
    )
    assert isinstance(found, dict)
    return found


_CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c[3] > 250) return c;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
    const box = e.getBoundingClientRect();
    if (!own || box.width < 2 || e.closest('.vh, .skip')) continue;
    const style = getComputedStyle(e);
    const colour = e.closest('svg') ? style.fill : style.color;
    let alpha = 1;
    for (let up = e; up; up = up.parentElement) alpha *= +getComputedStyle(up).opacity;
    const back = behind(e);
    const ink = rgba(colour).slice(0, 3).map((v, i) => v * alpha + back[i] * (1 - alpha));
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`;
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${name}`);
  }
  return [...new Set(poor)].slice(0, 20);
})()
"""
