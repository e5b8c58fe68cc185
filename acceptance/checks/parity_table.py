"""`parity_table FILE`: the largest differences of a table that `trainer parity --json` wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from acceptance.checks.common import finish


def main(file: str) -> int:
    table = json.loads(Path(file).read_text(encoding="utf-8"))
    rows = table["rows"]
    largest = {name: max(row[name] for row in rows) for name in table["limits"]}
    return finish({"variants": len(rows), "largest": largest}, table["faults"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
