"""Takes the pictures of this folder from the reports of a data run or of a training run (or both):
`python docs/screenshots/take.py [--data demo/report.html] [--training demo/clip/report.html]`.

Needs selenium (extra `dev`), chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
# name: width, colour scheme, where it begins, most of its height
DATA = {
    "report-1280": (1280, "light", "body", 1700),
    "report-1280-languages": (1280, "light", "#languages", 1150),
    "report-1280-balance": (1280, "light", "#balance", 1900),
    "report-1280-pairs": (1280, "light", "#samples", 1500),
    "report-1280-dark": (1280, "dark", "#balance", 900),
    "report-390": (390, "light", "body", 1700),
    "report-390-balance": (390, "light", "#balance", 1700),
    "report-390-pairs": (390, "light", "#samples", 1700),
}
TRAINING = {
    "training-1280": (1280, "light", "body", 1700),
    "training-1280-accuracy": (1280, "light", "#accuracy", 1500),
    "training-1280-examples": (1280, "light", "#examples", 1300),
    "training-1280-dark": (1280, "dark", "#curves", 900),
    "training-390": (390, "light", "body", 1700),
    "training-390-loss": (390, "light", "#curves", 1300),
    "training-390-accuracy": (390, "light", "#accuracy", 1300),
    "training-390-examples": (390, "light", "#examples", 1300),
}


def main(pages: list[tuple[Path, dict[str, tuple[int, str, str, int]]]]) -> None:
    """Write one WebP a shot of each page beside this file."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        for page, shots in pages:
            for name, shot in shots.items():
                picture = take(driver, page, *shot)
                picture.save(Path(__file__).with_name(f"{name}.webp"), quality=86, method=6)
    finally:
        driver.quit()


def take(
    driver: webdriver.Chrome, page: Path, width: int, scheme: str, start: str, height: int
) -> Image.Image:
    """The part of the page from the element `start` on, `height` pixels high at most."""

    def send(command: str, **parameters: Any) -> dict[str, Any]:
        return driver.execute_cdp_cmd(command, parameters)

    phone = width < 600
    send(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=2 if phone else 1,
        mobile=phone,
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    send("Emulation.setEmulatedMedia", features=features)
    driver.get(page.resolve().as_uri())
    where = f"document.querySelector('{start}').getBoundingClientRect().top + scrollY"
    top = driver.execute_script(f"return {where}")
    whole = driver.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": top, "width": width, "height": min(height, whole - top), "scale": 1}
    data = send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="takes the pictures of this folder")
    parser.add_argument("--data", type=Path, help="page of `dataflows report`")
    parser.add_argument("--training", type=Path, help="page of `trainer report`")
    given = parser.parse_args()
    if not (given.data or given.training):
        parser.error("give --data or --training")
    chosen = ((given.data, DATA), (given.training, TRAINING))
    main([(page, shots) for page, shots in chosen if page])
