"""The shipped stamps: cut-out pictures with captions in many languages (Tux Paint, GPL-2+).

They lie in the checkout (`data/stamps`), outside the wheel; an installation without a checkout
finds them under `$HEADRACE_ASSETS/stamps`. `SOURCE.md` there says where they are from.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from schemas.errors import InputError, UsageError

ASSETS_VARIABLE = "HEADRACE_ASSETS"
LICENCE = "Tux Paint stamps (Bill Kendrick and contributors), GPL-2.0-or-later"
"""The line for dataset cards: pictures and captions of the generated pool come from here."""

_CHECKOUT = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True)
class Stamp:
    """One stamp: its id, English concept (the class label), captions and names by language."""

    id: str
    concept: str
    captions: dict[str, str]
    names: dict[str, str]


class StampSet:
    """All stamps of a folder in ascending order of id; pictures are decoded when first asked for.

    `digest` (blake2b-256 hex) covers captions and pictures: a stage that generates or renders
    belongs to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            text = (folder / "captions.jsonl").read_bytes()
            rows = [json.loads(line) for line in text.splitlines()]
            files = sorted(folder.glob("images-*.parquet"))
            tables = [pq.read_table(file, columns=["id", "image"]) for file in files]
            digest = hashlib.blake2b(text, digest_size=32)
            self.stamps = tuple(Stamp(**row) for row in rows)
            self._encoded: dict[str, bytes] = {}
            for table in tables:
                for name, image in zip(*table.to_pydict().values(), strict=True):
                    self._encoded[name] = image
                    digest.update(image)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"stamps at {folder} cannot be read ({error}); restore data/stamps of the checkout"
            ) from error
        missing = [stamp.id for stamp in self.stamps if stamp.id not in self._encoded]
        if missing or not self.stamps:
            raise InputError(
                f"stamps at {folder}: no picture for {missing[:3] or 'any stamp'}; restore "
                "data/stamps of the checkout"
            )
        self.digest = digest.hexdigest()
        self.index = {stamp.id: i for i, stamp in enumerate(self.stamps)}
        self.concepts = tuple(sorted({stamp.concept for stamp in self.stamps}))
        number = {name: i for i, name in enumerate(self.concepts)}
        self.concept_of = np.array([number[stamp.concept] for stamp in self.stamps])

    @functools.lru_cache(maxsize=1024)  # noqa: B019 (stamp sets live as long as the process)
    def picture(self, stamp: str) -> Image.Image:
        """The decoded RGBA picture, cropped to what is visible; do not change it."""
        with Image.open(io.BytesIO(self._encoded[stamp])) as image:
            return image.convert("RGBA")


def folder() -> Path:
    """Where the stamps lie: the checkout's `data/stamps`, else `$HEADRACE_ASSETS/stamps`.

    Raises UsageError when neither holds captions.
    """
    places = [_CHECKOUT / "stamps"]
    if assets := os.environ.get(ASSETS_VARIABLE):
        places.append(Path(assets) / "stamps")
    for place in places:
        if (place / "captions.jsonl").is_file():
            return place
    raise UsageError(
        f"input=generated: no stamps found (looked in {', '.join(map(str, places))}). They are "
        f"data of the checkout, not of the wheel: set {ASSETS_VARIABLE} to its data folder."
    )


@functools.lru_cache(maxsize=4)
def load(place: Path | None = None) -> StampSet:
    """The stamps of a folder (default: the shipped ones), read once a process."""
    return StampSet(place or folder())
