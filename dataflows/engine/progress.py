"""Progress of a job that blocks: workers append to files, a thread shows their sum on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path


class Progress:
    """Context manager: prints ``stage: units done, rows, rows/s`` while a job runs.

    On a terminal one line is rewritten each second; elsewhere a line is printed every ten seconds.
    """

    def __init__(self, stage: str, directory: Path | None) -> None:
        self._stage = stage
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._tty = sys.stderr.isatty()
        self._started = time.monotonic()
        self._before = self._read()

    def _read(self) -> tuple[int, int]:
        rows: dict[str, int] = {}
        done: set[str] = set()
        if self._directory is not None and self._directory.is_dir():
            for file in self._directory.glob("*.jsonl"):
                for line in file.read_text(encoding="utf-8").splitlines():
                    try:
                        entry = json.loads(line)
                    except ValueError:  # a worker died in the middle of a line
                        continue
                    rows[entry["unit"]] = max(rows.get(entry["unit"], 0), entry["rows"])
                    if entry["done"]:
                        done.add(entry["unit"])
        return len(done), sum(rows.values())

    def _line(self) -> str:
        units, rows = self._read()
        seconds = time.monotonic() - self._started
        rate = (rows - self._before[1]) / max(seconds, 1e-9)
        return f"{self._stage}: {units:,} units done, {rows:,} rows, {rate:,.0f} rows/s, {seconds:,.0f} s"

    def _watch(self) -> None:
        while not self._stop.wait(1.0 if self._tty else 10.0):
            if self._tty:
                print(f"\r\033[K  {self._line()}", end="", file=sys.stderr, flush=True)
            else:
                print(f"  {self._line()}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._tty:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
