"""Records of work that takes more than ten minutes: committed, and refused when out of date.

A record holds the command, its seeds, the values, the commit, and a digest of the sources that it
depends on. `python -m acceptance.records check NAME` prints its values, and exits 1 if the sources
have changed since or the record is absent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from acceptance.runner import ROOT, git

FOLDER = ROOT / "acceptance" / "records"


@dataclass(frozen=True)
class Record:
    """One finished piece of long work."""

    name: str
    command: str
    seeds: list[int]
    values: dict[str, Any]
    commit: str
    written: str
    seconds: float
    sources: list[str]
    sources_digest: str


def sources_digest(patterns: Sequence[str], root: Path = ROOT) -> str:
    """SHA-256 over the names and contents of the files that the glob patterns match."""
    files = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    whole = hashlib.sha256()
    for path in sorted(files):
        if "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return whole.hexdigest()


def write(
    name: str,
    *,
    command: str,
    seeds: Sequence[int],
    values: dict[str, Any],
    seconds: float,
    sources: Sequence[str],
) -> Path:
    """Write `records/NAME.json`; it is to be committed."""
    record = Record(
        name=name,
        command=command,
        seeds=list(seeds),
        values=values,
        commit=git("rev-parse", "HEAD"),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        sources=list(sources),
        sources_digest=sources_digest(sources),
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    text = json.dumps(asdict(record), indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def load(name: str, folder: Path = FOLDER) -> Record:
    """The record; FileNotFoundError if there is none."""
    return Record(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def stale(record: Record, root: Path = ROOT) -> str | None:
    """Why the record no longer speaks of this checkout, or None."""
    now = sources_digest(record.sources, root)
    if now == record.sources_digest:
        return None
    return (
        f"the record {record.name} of {record.written} (commit {record.commit[:12]}) is stale: "
        f"{', '.join(record.sources)} changed since; run `{record.command}` again"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m acceptance.records", description=__doc__)
    parser.add_argument("action", choices=["check"])
    parser.add_argument("name")
    args = parser.parse_args(argv)
    try:
        record = load(args.name)
    except FileNotFoundError:
        print(f"no record {args.name} in {FOLDER.relative_to(ROOT)}", file=sys.stderr)
        return 1
    if why := stale(record):
        print(why, file=sys.stderr)
        return 1
    print(json.dumps(record.values | {"record_commit": record.commit}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
