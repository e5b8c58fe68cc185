"""`python -m acceptance.records check NAME [FOLDER]`: print the values of a committed record.

Exit code 1 if the sources have changed since it was written, or if there is none.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from acceptance.runner import ROOT
from schemas import records

FOLDER = ROOT / "acceptance" / "records"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m acceptance.records", description=__doc__)
    parser.add_argument("action", choices=["check"])
    parser.add_argument("name")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    args = parser.parse_args(argv)
    try:
        record = records.load(args.folder, args.name)
    except FileNotFoundError:
        print(f"no record {args.name} in {args.folder}", file=sys.stderr)
        return 1
    if why := records.stale(record, ROOT):
        print(why, file=sys.stderr)
        return 1
    print(json.dumps(record.values | {"record_commit": record.commit}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
