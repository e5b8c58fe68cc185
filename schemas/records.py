"""Records of work that takes more than ten minutes: committed, and refused when out of date.

A record holds the command, its seeds, the values, the commit, and a digest of the sources that it
depends on, so that a reader can tell whether it still speaks of the checkout at hand.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


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


def sources_digest(patterns: Sequence[str], root: Path) -> str:
    """Return SHA-256 over the names and contents of the files that the glob patterns match."""
    files = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    whole = hashlib.sha256()
    for path in sorted(files):
        if "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return whole.hexdigest()


def write(
    folder: Path,
    name: str,
    *,
    command: str,
    seeds: Sequence[int],
    values: dict[str, Any],
    seconds: float,
    sources: Sequence[str],
    root: Path,
) -> Path:
    """Write `folder/NAME.json` about the checkout at ``root``; it is to be committed."""
    record = Record(
        name=name,
        command=command,
        seeds=list(seeds),
        values=values,
        commit=_commit(root),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        sources=list(sources),
        sources_digest=sources_digest(sources, root),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps(asdict(record), indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def load(folder: Path, name: str) -> Record:
    """Return the record; FileNotFoundError if there is none."""
    return Record(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def stale(record: Record, root: Path) -> str | None:
    """Say why the record no longer speaks of the checkout at ``root``; None if it does."""
    if sources_digest(record.sources, root) == record.sources_digest:
        return None
    return (
        f"the record {record.name} of {record.written} (commit {record.commit[:12]}) is stale: "
        f"{', '.join(record.sources)} changed since; run `{record.command}` again"
    )


def _commit(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
