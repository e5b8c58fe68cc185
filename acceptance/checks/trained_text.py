"""`trained_text RUN`: the table of bits per byte, the sample, and whether the model is below both."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from acceptance.checks.common import finish


def main(run: str) -> int:
    place = Path(run)
    result = json.loads((place / "eval" / "bits.json").read_text(encoding="utf-8"))
    rows = result["rows"]
    bits = {}
    for name, row in rows.items():
        found = row["bits_per_byte"]
        bits[name] = found["mean"] if isinstance(found, dict) else found
    faults = [
        f"{page} is missing or empty"
        for page in (place / "report.html", place.parent / "report.html")
        if not page.is_file() or page.stat().st_size < 10_000
    ]
    if set(bits) != {"model", "5-gram", "xz -9"}:
        faults.append(f"the table has {sorted(bits)}")
    others = min(value for name, value in bits.items() if name != "model")
    values = {"bits": bits, "documents": result["documents"], "over_best": bits["model"] / others}
    return finish(values, faults)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
