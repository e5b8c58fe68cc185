"""Memory that training took on a rank at its highest, to hold against what was planned."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from trainer.engine.together import everyone
from trainer.protocols import Place


class Footprint:
    """Memory from here on: of a GPU what was allocated there, of a CPU what the process grew by.

    On a CPU that is resident memory above that of the process as it is now, libraries included; without
    Linux' /proc nothing is known.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._before = 0
        if place.device != "cpu":
            import torch

            torch.cuda.reset_peak_memory_stats(place.local_rank)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
            self._before = _resident("VmRSS") or 0

    def highest(self) -> int | None:
        """Return the bytes of the rank that took most. All ranks call it."""
        found = everyone(self._place, self._own())
        known = [size for size in found if size is not None]
        return max(known) if known else None

    def _own(self) -> int | None:
        if self._place.device != "cpu":
            import torch

            return int(torch.cuda.max_memory_allocated(self._place.local_rank))
        size = _resident("VmHWM")
        return None if size is None else max(0, size - self._before)


def _resident(name: str) -> int | None:
    """Bytes of a line of /proc/self/status."""
    with contextlib.suppress(OSError):
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        if found := re.search(rf"^{name}:\s+(\d+) kB", text, re.M):
            return 1024 * int(found[1])
    return None
