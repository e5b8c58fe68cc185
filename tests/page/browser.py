"""Pages in a headless Chromium: what both reports have to stand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

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


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser; skips the test where there is none."""
    chromium = require("chromium")
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("chromedriver is not installed (make system)")
    found = Browser(chromium, driver, profile)
    try:
        yield found
    finally:
        found.driver.quit()


def check_quiet(browser: Browser, page: Path, width: int, scheme: str) -> None:
    """No console line, no request, no sideways scroll, folded and unfolded."""
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


def check_inside(browser: Browser, page: Path, width: int) -> None:
    """No element pokes out of the window."""
    browser.open(page, width)
    out = browser.run(
        "[...document.querySelectorAll('main *, header *, footer *')].filter(e => {"
        "  const box = e.getBoundingClientRect();"
        "  return box.width > 1 && !e.closest('.vh') && getComputedStyle(e).clipPath == 'none'"
        f"    && !e.closest('thead') && (box.right > {width} + 1 || box.left < -1);"
        "}).map(e => e.outerHTML.slice(0, 120))"
    )
    assert out == []


def check_inert(browser: Browser, page: Path) -> None:
    """No script of a text ran, and the page's policy holds even for a script that got in."""
    browser.open(page, 1280)
    assert browser.run("typeof window.owned") == "undefined"
    assert browser.run("document.scripts.length") == 0
    assert browser.run("document.querySelectorAll('[onload], [onerror], [onclick]').length") == 0
    browser.run(
        "{const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
        " document.body.append(s)}"
    )
    assert browser.run("typeof window.owned") == "undefined"


def check_contrast(browser: Browser, page: Path) -> None:
    """WCAG AA: 4.5 to 1 for every piece of text against what lies behind it, in both schemes."""
    for scheme in ("light", "dark"):
        browser.open(page, 1280, scheme)
        assert browser.run(CONTRAST) == []


def caption_box(browser: Browser, caption: str) -> dict[str, Any]:
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


CONTRAST = """
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
