"""Lists every item of a paper's checklist with the result of its tests.

`python -m tests.spec metaclip2` runs the marked tests and prints the list; `--from FILE` reads a
report that a run with `--spec-report FILE` wrote. Exit code 1 if an item failed or has no test.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import ROOT

CHECKLISTS = {"metaclip2": 29}
"""Items of each paper's checklist."""


def item_texts(paper: str) -> dict[int, str]:
    """The checklist's sentences where the papers lie beside the checkout; else empty."""
    path = ROOT.parent / "shared" / "papers" / f"{paper}.md"
    if not path.exists():
        return {}
    section = re.split(r"^## .*faithful implementation shows.*$", path.read_text(), flags=re.M)
    if len(section) < 2:
        return {}
    body = re.split(r"^## ", section[1], flags=re.M)[0]
    return {int(n): " ".join(text.split()) for n, text in re.findall(ITEM, body, flags=re.M | re.S)}


ITEM = r"^(\d+)\.\s+(.*?)(?=^\d+\.\s|\Z)"


def verdict(outcomes: dict[str, int] | None) -> str:
    """pass, fail, skipped (some, none failed) or no test."""
    if not outcomes:
        return "no test"
    if outcomes.get("failed"):
        return "fail"
    return "pass" if outcomes.get("passed") and not outcomes.get("skipped") else "skipped"


def run(paper: str, workers: int) -> tuple[dict, int]:
    """Run the paper's marked tests; (report, pytest's exit code)."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "spec.json"
        command = [sys.executable, "-m", "pytest", "-q", "--spec", paper, "--spec-report", report]
        if workers > 1:
            command += ["-n", str(workers), "--dist", "loadfile"]
        code = subprocess.run([str(c) for c in command], cwd=ROOT, check=False).returncode
        return (json.loads(report.read_text()) if report.exists() else {}), code


def table(paper: str, report: dict) -> list[dict]:
    """One row for each item: item, result, tests, text."""
    texts = item_texts(paper)
    rows = []
    for item in range(1, CHECKLISTS[paper] + 1):
        found = report.get(paper, {}).get(str(item), {})
        result = verdict(found.get("outcomes"))
        tests = found.get("tests", [])
        rows.append({"item": item, "result": result, "tests": tests, "text": texts.get(item, "")})
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.spec", description=__doc__)
    parser.add_argument("paper", nargs="?", default="metaclip2", choices=sorted(CHECKLISTS))
    parser.add_argument("--from", dest="source", type=Path, help="read this --spec-report")
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument("--values", action="store_true", help="print the counts as JSON too")
    parser.add_argument("--workers", type=int, default=1, help="test processes (default 1)")
    args = parser.parse_args(argv)
    code = 0
    if args.source:
        report = json.loads(args.source.read_text())
    else:
        report, code = run(args.paper, args.workers)
    rows = table(args.paper, report)
    for row in rows:
        print(f"{row['item']:>3}  {row['result']:<8}  {len(row['tests'])} tests  {row['text']}")
    bad = [row["item"] for row in rows if row["result"] in ("fail", "no test", "skipped")]
    shown = sum(row["result"] == "pass" for row in rows)
    print(f"{args.paper}: {shown} of the {len(rows)} items shown{_but(bad)}")
    if args.values:
        print(json.dumps({"items_shown": shown, "items_not_shown": bad}))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return 1 if bad or code not in (0, 5) else 0


def _but(bad: list[int]) -> str:
    return f"; not shown: {', '.join(map(str, bad))}" if bad else ""


if __name__ == "__main__":
    sys.exit(main())
