"""`screenshots REPORT FOLDER [NAME]`: photograph a report at both widths; committed ones are there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from acceptance.checks.common import finish
from tests.support import PROBES

WIDTHS = (390, 1280)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def main(report: str, folder: str, name: str = "report") -> int:
    from PIL import Image

    chromium = PROBES["chromium"]()
    faults = []
    values: dict[str, object] = {}
    for width in WIDTHS:
        picture = Path(folder) / f"{name}-{width}.png"
        with tempfile.TemporaryDirectory() as profile:
            command = [
                chromium,
                *FLAGS,
                f"--user-data-dir={profile}",
                f"--window-size={width},2400",
            ]
            command += [f"--screenshot={picture}", Path(report).resolve().as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(picture) as image:
            values[f"taken_{width}"] = list(image.size)
            if image.size[0] != width or len(image.getcolors(1 << 24) or []) < 50:
                faults.append(f"{picture.name} is {image.size}, or shows next to nothing")
    committed: dict[str, int] = {}
    for path in sorted(Path("docs/screenshots").glob(f"{name}-*.*")):
        with Image.open(path) as image:
            committed[path.name] = image.size[0]
    values["committed"] = committed
    for width in WIDTHS:
        # A picture may be taken at twice the pixels, as a telephone's screen has them.
        shots = [size for file, size in committed.items() if file.startswith(f"{name}-{width}")]
        if not shots or any(size not in (width, 2 * width) for size in shots):
            faults.append(f"docs/screenshots has no screenshot of width {width}: {shots}")
    return finish(values, faults)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
