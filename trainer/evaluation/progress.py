"""One line on stderr that says how far an evaluation is."""

from __future__ import annotations

import sys
import time

_EVERY = 10.0  # seconds between lines where stderr is no terminal


class Progress:
    """Counts up to ``total``: a line that is rewritten on a terminal, else one in ten seconds."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._start = self._said = time.monotonic()
        self._live = sys.stderr.isatty()

    def add(self, count: int) -> None:
        """Count ``count`` more as done."""
        self._done += count
        now = time.monotonic()
        last = self._done >= self._total
        if now - self._said < (0.2 if self._live else _EVERY) and not (last and self._live):
            return
        self._said = now
        rate = self._done / max(now - self._start, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        line = (
            f"{self._label}: {self._done:,} of {self._total:,}, {rate:,.0f}/s, {left:,.0f} s left"
        )
        end = ("\n" if last else "") if self._live else "\n"
        start = "\r\x1b[K" if self._live else ""
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)
