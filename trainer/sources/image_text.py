"""Image-text pairs of a committed dataset as training samples (MetaCLIP 2, section 7).

Sample k of a run is a pure function of (dataset, seed, settings, k): epochs follow one another, each in
the order of `trainer.order`; with ``draw`` each is a draw of its own of `matched` (online balancing),
so epochs differ in length. The crop is drawn by (seed, epoch, position in the epoch).

An image that cannot be used is replaced, with its text, by the sample at a hashed position of the same
epoch, and `ImageText.replaced` says so. One lock guards reading, which is a small part of the work; decoding,
rendering and tokenising run in the caller's thread, so loader threads share one source and its window.
"""

from __future__ import annotations

import itertools
import logging
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError, UsageError
from schemas.ids import uniform
from trainer.config import RunConfig
from trainer.order import Numbers
from trainer.protocols import Batch, Parts, Positions
from trainer.reader import Reader
from trainer.sources import crops, pictures
from trainer.sources.pictures import BadImage, Limits

ATTEMPTS = 16
"""Samples that are tried in the place of one whose image is bad."""

SALT_REPLACE = 6
_EPOCHS_HELD = 2  # loader threads cross an epoch's end together
_IDS = ("pair_id", "image_id", "url", "source", "shard", "row")
_log = logging.getLogger(__name__)


class Settings(BaseModel):
    """``data: {name: image_text, path: out/curated, ...}``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="a committed dataset, such as out/curated or out/matched")
    draw: Literal["image", "text"] | None = Field(
        None, description="draw each epoch anew by keep_probability, from a matched dataset"
    )
    window: int | None = Field(
        None, ge=1, description="rows shuffled together (default: 128 MiB of rows, 65536 at most)"
    )
    images: Literal["column", "generated"] = Field(
        "column", description="from image_column, or rendered from the URLs of the generated pool"
    )
    image_column: str = Field("image", description="images as struct<bytes, path>")
    text_column: str = "text"
    render_size: int = Field(96, ge=16, le=512, description="pixels a side of a rendered picture")
    crop: tuple[float, float] | None = Field(
        (0.9, 1.0), description="smallest and largest part of the area that is cut; null: all of it"
    )
    max_pixels: int = Field(Limits().max_pixels, ge=1, description="larger images are replaced")

    @model_validator(mode="after")
    def _ordered(self) -> Settings:
        if self.crop and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(
                f"crop={list(self.crop)}: give two parts of the area, 0 < low <= high <= 1"
            )
        return self


@dataclass(frozen=True)
class _Raw:
    """Samples before decoding: n texts, images (bytes, a pool URL, or None) and ids (hex)."""

    texts: list[str]
    images: list[bytes | memoryview | str | None]
    ids: list[str]


class ImageText:
    """See the module. Any number of threads may call it."""

    def __init__(
        self,
        dataset: Dataset,
        settings: Settings,
        seed: int,
        tokenizer: Any,
        image_size: int,
        context: int,
    ) -> None:
        """Give ``image_size`` (pixels a side) and ``context`` (tokens) as the model has them.

        UsageError if the dataset lacks a column or cannot be drawn from.
        """
        self.dataset = dataset
        self.settings = settings
        self.seed = seed
        self.digest = dataset.manifest.digest
        self.image_size = image_size
        self.context = context
        self._tokenizer = tokenizer
        self._limits = Limits(max_pixels=settings.max_pixels)
        self._picture = "url" if settings.images == "generated" else settings.image_column
        self._id = dataset.spec.id_column
        wanted = [self._picture, settings.text_column, *([self._id] if self._id else [])]
        self._columns = list(dict.fromkeys(wanted))
        self._check_columns()
        self._lock = threading.Lock()
        self._readers: dict[int, Reader] = {}
        self._ends = [0]
        self._replaced: dict[int, dict[str, Any]] = {}
        self._reader(0)  # settings that do not fit are refused now

    def samples(self, epochs: float) -> int:
        """Return how many samples the first ``epochs`` epochs have; the last may be a part of one."""
        with self._lock:
            whole = int(epochs)
            self._reach(epochs=whole + (epochs > whole))
            low = self._ends[whole]
            return low + int((epochs - whole) * (self._ends[-1] - low if epochs > whole else 0))

    def batch(self, positions: Positions) -> Batch:
        """Return pixel_values float32 [n, 3, s, s], input_ids and attention_mask int64 [n, context].

        InputError if a bad image found no replacement, and what reading raises.
        """
        import torch

        from trainer import tokenizer

        at = np.asarray(positions, np.int64)
        size = self.image_size
        pixels = torch.empty((len(at), 3, size, size), dtype=torch.uint8)
        texts = [""] * len(at)
        for epoch, low, high in self._epochs(at):
            samples = at[low:high] - self._ends[epoch]
            with self._lock:
                raw = self._raw(self._reader(epoch).lists(samples))
            chances = crops.chances(self.seed, epoch, samples)
            for i, sample in enumerate(samples.tolist()):
                try:
                    pixels[low + i] = self._image(raw.images[i], chances[i])
                    texts[low + i] = raw.texts[i]
                except BadImage as error:
                    found = self._instead(epoch, sample, int(at[low + i]), raw.ids[i], error)
                    pixels[low + i], texts[low + i] = found
        ids, mask = tokenizer.encode(self._tokenizer, texts, self.context)
        return {
            "pixel_values": pictures.normalise(pixels),
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
        }

    def places(self, positions: Positions) -> list[dict[str, Any]]:
        """Return where samples lie: epoch, position in it, shard, row group, row of the shard, and
        ``ids``: those of the row, which lead to the source. A bad image is not looked for."""
        at = np.asarray(positions, np.int64)
        names = [name for name in _IDS if name in self.dataset.schema.names]
        found = []
        for epoch, low, high in self._epochs(at):
            samples = at[low:high] - self._ends[epoch]
            with self._lock:
                where = self._reader(epoch).locate(samples)
            for i, sample in enumerate(samples.tolist()):
                shard, row = int(where.shard[i]), int(where.row[i])
                ids = self.dataset.take(shard, [row], names).to_pylist()[0]
                found.append(
                    {
                        "position": int(at[low + i]),
                        "epoch": epoch,
                        "sample": sample,
                        "shard": shard,
                        "file": self.dataset.shards()[shard].file,
                        "group": int(where.group[i]),
                        "row": row,
                        "ids": {k: v.hex() if isinstance(v, bytes) else v for k, v in ids.items()},
                    }
                )
        return found

    def replaced(self) -> list[dict[str, Any]]:
        """Return the replacements since the last call, by position: {position, id, reason, error,
        by: position of the sample that was taken, tried}."""
        with self._lock:
            found, self._replaced = self._replaced, {}
        return [found[k] for k in sorted(found)]

    # -- helpers ---------------------------------------------------------------------------

    def _check_columns(self) -> None:
        names = self.dataset.schema.names
        for name in self._columns:
            if name in names:
                continue
            rendered = "; data.images=generated renders the URLs of the generated pool"
            more = rendered if name == self.settings.image_column else ""
            raise UsageError(
                f"data.path={self.dataset.storage.url} has no column {name!r} (it is "
                f"{self.dataset.spec.name}: {', '.join(names)}){more}"
            )

    def _reader(self, epoch: int) -> Reader:
        """The reader of an epoch; under the lock."""
        if epoch not in self._readers:
            self._readers[epoch] = Reader(
                self.dataset,
                seed=self.seed,
                epoch=epoch,
                window=self.settings.window,
                draw=self.settings.draw,
                columns=self._columns,
            )
            while len(self._readers) > _EPOCHS_HELD:
                del self._readers[next(iter(self._readers))]
        return self._readers[epoch]

    def _reach(self, *, epochs: int = 0, position: int = -1) -> None:
        """Know the ends of so many epochs, and of all up to a position's; under the lock."""
        while len(self._ends) <= epochs or self._ends[-1] <= position:
            epoch = len(self._ends) - 1
            drawn = self.settings.draw is not None
            size = len(self._reader(epoch)) if drawn else len(self.dataset)
            if size == 0:
                why = f"draw={self.settings.draw} kept none of" if drawn else "it has none of"
                raise InputError(
                    f"data.path={self.dataset.storage.url}: epoch {epoch} has no sample: {why} "
                    f"{len(self.dataset)} rows; give a larger dataset"
                )
            self._ends.append(self._ends[-1] + size)

    def _epochs(self, at: Numbers) -> list[tuple[int, int, int]]:
        """Runs of positions of one epoch: (epoch, first, last + 1). UsageError for one below 0."""
        if len(at) and at.min() < 0:
            raise UsageError(f"there is no sample {int(at.min())}: positions start at 0")
        with self._lock:
            self._reach(position=int(at.max(initial=-1)))
        epoch = np.searchsorted(self._ends, at, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(epoch)) + 1).tolist(), len(at)]
        return [(int(epoch[a]), a, b) for a, b in itertools.pairwise(cuts) if b > a]

    def _raw(self, rows: dict[str, list[Any]]) -> _Raw:
        texts = [text or "" for text in rows[self.settings.text_column]]
        ids = [value.hex() for value in rows[self._id]] if self._id else [""] * len(texts)
        return _Raw(texts, rows[self._picture], ids)

    def _image(
        self, image: bytes | memoryview | str | None, chances: npt.NDArray[np.float64]
    ) -> Any:
        """uint8 [3, s, s]."""
        if image is None:
            raise BadImage("no_image", "the row has no image")
        if isinstance(image, str):
            image = self._rendered(image)
        scale = self.settings.crop
        size = (self.image_size, self.image_size)
        if scale is None:
            return pictures.load(image, size, None, self._limits)
        return pictures.load(
            image, size, lambda w, h: crops.crop(w, h, scale, chances), self._limits
        )

    def _rendered(self, url: str) -> bytes:
        from curation.pool.render import render

        try:
            return render(url, self.settings.render_size)
        except InputError as error:
            raise BadImage("not_in_the_pool", str(error)) from None

    def _instead(
        self, epoch: int, sample: int, position: int, row: str, fault: BadImage
    ) -> tuple[Any, str]:
        """Image and text in the place of a sample: those at hashed positions of its epoch, in turn."""
        start = self._ends[epoch]
        size = self._ends[epoch + 1] - start
        keys = np.empty((ATTEMPTS, 2), "<u8")
        keys[:, 0], keys[:, 1] = sample, np.arange(ATTEMPTS)
        others = np.floor(uniform(self.seed, epoch, keys, SALT_REPLACE) * size).astype(np.int64)
        for tried, other in enumerate(others.tolist(), 1):
            with self._lock:
                raw = self._raw(self._reader(epoch).lists([other], keep=False))
            try:
                chances = crops.chances(self.seed, epoch, np.array([other]))
                image = self._image(raw.images[0], chances[0])
            except BadImage:
                continue
            self._note(position, row, fault, start + other, tried)
            return image, raw.texts[0]
        raise InputError(
            f"data.path={self.dataset.storage.url}: sample {position} ({row}) has a bad image "
            f"({fault}), and so have the {ATTEMPTS} samples tried in its place: the dataset is not "
            "fit for training; run `dataflows verify` on it"
        )

    def _note(self, position: int, row: str, fault: BadImage, other: int, tried: int) -> None:
        event = {
            "position": position,
            "id": row,
            "reason": fault.reason,
            "error": str(fault),
            "by": other,
            "tried": tried,
        }
        with self._lock:
            self._replaced[position] = event
        _log.warning("sample %d (%s) is replaced by sample %d: %s", position, row, other, fault)


def build(settings: Settings, config: RunConfig, parts: Parts) -> ImageText:
    """Return the source of a run. UsageError if the dataset does not fit, and `open_dataset`'s errors.

    Without a model in ``parts`` it can say where samples lie, and make no batch.
    """
    size = context = 0
    if parts.model is not None:
        size = int(parts.model.config.vision_config.image_size)
        context = int(parts.model.config.text_config.max_position_embeddings)
    return ImageText(
        open_dataset(settings.path), settings, config.seed, parts.tokenizer, size, context
    )
