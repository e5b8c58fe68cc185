"""Names the samples that a fault came from: written to the run directory, told in its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.engine.faults import Fault, Faults
from trainer.engine.feed import step_positions
from trainer.engine.step import NotFinite
from trainer.engine.together import agreed, everyone
from trainer.protocols import Place, Source

NAMED = 1000
"""Samples whose places and ids are written down."""

_SHOWN = 3


@dataclass(frozen=True)
class Guilty:
    """Samples of a fault: of the ranks' own values that were not finite, else the whole step."""

    step: int
    why: str
    positions: list[int]
    ids: list[dict[str, Any]]
    places: list[dict[str, Any]]

    def text(self) -> str:
        """The fault and its first samples, for people."""
        first = "; ".join(
            f"{position} ({', '.join(f'{k} {_short(v)}' for k, v in ids.items())})"
            for position, ids in zip(self.positions[:_SHOWN], self.ids, strict=False)
        )
        more = ", ..." if len(self.positions) > _SHOWN else ""
        count = len(self.positions)
        return f"{self.why}, from {count} sample{'s' if count > 1 else ''}: {first}{more}"

    def write(self, faults: Faults, fault: Fault | None) -> None:
        """Write the file of `Faults.path`; ``fault``: as it was borne, None if it stops the run."""
        facts = {"step": self.step + 1, "fault": self.why, "positions": self.positions}
        faults.write(self.step, {**facts, "places": self.places}, fault)


def guilty(error: NotFinite, step: int, batch: int, source: Source, place: Place) -> Guilty:
    """Find the samples of a fault. Called by all ranks; each returns the same.

    ``step`` counts from 0. Places and ids are of the first `NAMED` samples.
    """
    positions = np.concatenate(everyone(place, error.positions))
    if not len(positions):  # no sample is at fault by itself
        positions = step_positions(step, batch)
    places = agreed(place, lambda: source.places(positions[:NAMED]))
    ids = [dict(found.get("ids", {})) for found in places]
    return Guilty(step, str(error), positions.tolist(), ids, places)


def _short(value: Any) -> Any:
    """A value of one sample; of a sequence of many documents the first ones."""
    if isinstance(value, list) and len(value) > _SHOWN:
        return f"{', '.join(map(str, value[:_SHOWN]))} and {len(value) - _SHOWN} more"
    return ", ".join(map(str, value)) if isinstance(value, list) else value
