"""`python -m acceptance [SYSTEM]`: exit 0 if no line failed, 1 if one did, 130 if stopped."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from acceptance import runner
from acceptance.clip import CLIP
from acceptance.metaclip2 import METACLIP2
from acceptance.text import TEXT

SYSTEMS = {system.name: system for system in (METACLIP2, CLIP, TEXT)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m acceptance", description=__doc__)
    parser.add_argument("system", nargs="?", default="all", choices=["all", *SYSTEMS])
    parser.add_argument("--only", default="", help="ids of lines, separated by commas")
    parser.add_argument("--here", action="store_true", help="run in this checkout, no fresh clone")
    parser.add_argument("--list", action="store_true", help="print the lines and their commands")
    args = parser.parse_args(argv)
    chosen = list(SYSTEMS.values()) if args.system == "all" else [SYSTEMS[args.system]]
    if args.list:
        for system in chosen:
            for line in system.lines:
                print(f"{system.name} {line.id}: {line.promise}")
                for command in line.commands:
                    print(f"    {' '.join(command.argv)}")
        return 0
    if not args.here and runner.git("status", "--porcelain"):
        print(
            "acceptance: uncommitted changes are not in the clone that is tested", file=sys.stderr
        )
    only = [name for name in args.only.split(",") if name]
    known = {line.id for system in chosen for line in system.lines}
    if unknown := [name for name in only if name not in known]:
        print(f"acceptance: no line {unknown[0]!r}; see --list", file=sys.stderr)
        return 2
    results = []
    earlier: dict[str, dict[str, Any]] = {}
    try:
        paths = runner.prepare(args.here)
        for system in chosen:
            mine = [name for name in only if name in {line.id for line in system.lines}]
            if mine or not only:
                results.append(runner.run_system(system, mine, args.here, paths, earlier))
    except KeyboardInterrupt:
        print("\nacceptance: stopped", file=sys.stderr)
        return 130
    statuses = [row["status"] for result in results for row in result["lines"]]
    print(json.dumps({status: statuses.count(status) for status in ("pass", "missed", "fail")}))
    print(f"written: {(runner.OUT / 'acceptance.json').relative_to(runner.ROOT)}")
    return 1 if "fail" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
