"""The draw of one image, made again, with the random numbers that decided it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from curation.metaclip2.draw import IMAGE_MODE, draw
from dataflows.report.source import Run
from schemas.ids import SALT_DRAW, SALT_PICK, id_array, uniform
from schemas.table_schemas import MATCHED


@dataclass(frozen=True)
class Draw:
    """What the draw did with the matched texts of an image.

    `picked` is the text that the image picked in mode "image" (None in mode "text"), by the number
    `pick_u` at place `pick_place` (from 0) of `texts`. `kept` are the pairs that the draw keeps,
    `there` those that the curated dataset holds.
    """

    seed: int
    epoch: int
    picked: bytes | None
    pick_u: float
    pick_place: int
    texts: int
    kept: frozenset[bytes]
    there: frozenset[bytes]

    @classmethod
    def of(cls, run: Run, matched: pa.Table | None, curated: pa.Table | None) -> Draw | None:
        """The draw over all matched rows of one image; None if the run has no draw."""
        if matched is None or curated is None or not matched.num_rows:
            return None
        manifest = run.datasets["curated"].manifest
        seed, epoch = manifest.seed or 0, int(manifest.config.get("epoch", 0))
        mode = manifest.config.get("mode", IMAGE_MODE)
        rows = matched.select(MATCHED.arrow.names).sort_by("pair_id").cast(MATCHED.arrow)
        kept = draw(rows, seed, epoch, mode).table["pair_id"].to_pylist()
        number, place, picked = 0.0, 0, None
        if mode == IMAGE_MODE:
            number = float(uniform(seed, epoch, rows["image_id"].slice(0, 1), SALT_PICK)[0])
            place = min(int(number * rows.num_rows), rows.num_rows - 1)
            picked = rows["pair_id"][place].as_py()
        there = frozenset(curated["pair_id"].to_pylist())
        return cls(seed, epoch, picked, number, place, rows.num_rows, frozenset(kept), there)

    def number(self, pair: bytes) -> float:
        """The random number of a pair: kept if below its keep probability."""
        return float(uniform(self.seed, self.epoch, id_array([pair]), SALT_DRAW)[0])
