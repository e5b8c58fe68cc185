"""Checksums remembered between commands, so that a finished run is found finished without hashing.

A checksum is remembered for (path, size, inode, time of change). A file changed within the last
seconds could change again without its time showing it, so it is not remembered (as in git's
index). The file is a cache: without it, or if it is damaged, everything is hashed again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from curation.ingest.files import File, memory_key

_FRESH_SECONDS = 2.0
_TABLE = "CREATE TABLE IF NOT EXISTS checksums (file TEXT PRIMARY KEY, checksum TEXT NOT NULL)"


def memory_path() -> Path:
    """Where checksums are remembered: ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "headrace" / "checksums.sqlite"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=10)
    try:
        with connection:
            connection.execute(_TABLE)
            yield connection
    finally:
        connection.close()


def recall(files: Iterable[File], path: Path | None = None) -> dict[str, str]:
    """Remembered checksums of the files that are still the same, by ``memory_key``."""
    path = path or memory_path()
    known: dict[str, str] = {}
    if not path.exists():
        return known
    with contextlib.suppress(sqlite3.Error, OSError), _opened(path) as connection:
        for file in files:
            key = memory_key(file)
            row = connection.execute("SELECT checksum FROM checksums WHERE file = ?", (key,))
            for (checksum,) in row:
                known[key] = checksum
    return known


def remember(checksums: Mapping[File, str], path: Path | None = None) -> None:
    """Remember checksums of local files, but not of files that changed just now."""
    path = path or memory_path()
    before = time.time() - _FRESH_SECONDS
    rows = [
        (memory_key(file), checksum)
        for file, checksum in checksums.items()
        if file.stamp.startswith("stat:") and int(file.stamp.rpartition(":")[2]) / 1e9 < before
    ]
    if not rows:
        return
    with contextlib.suppress(sqlite3.Error, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path) as connection:
            connection.executemany("INSERT OR REPLACE INTO checksums VALUES (?, ?)", rows)
