"""`trained_demo DEMO`: the demo's model is above chance on what it never saw, and both reports stand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from acceptance.checks.common import finish


def main(demo: str) -> int:
    place = Path(demo)
    result = json.loads((place / "clip" / "eval" / "pool.json").read_text(encoding="utf-8"))
    head = result["headline"]
    faults = [
        f"{page} is missing or empty"
        for page in (place / "report.html", place / "clip" / "report.html")
        if not page.is_file() or page.stat().st_size < 10_000
    ]
    if head["low"] <= head["chance"]:
        faults.append(f"the interval of {head} includes chance")
    if result.get("t", 1) <= 1:
        faults.append(f"t of English is {result.get('t')}")
    values = {name: head[name] for name in ("metric", "mean", "low", "high", "chance")}
    return finish({"score": values, "t": result.get("t")}, faults)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
