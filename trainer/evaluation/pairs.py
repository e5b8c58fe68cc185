"""Evaluation `retrieval`: a committed dataset's own pairs, recall at 1, 5 and 10 in each language.

A sample of its images by a hash of their ids; of each language, its texts against the images that have
one. Images with the same words are all right for them: captions of a web pool repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from curation.pool.render import SIZES, render
from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError, UsageError
from schemas.ids import uniform
from trainer.evaluation.ranking import Features, Ints, nearest
from trainer.evaluation.retrieval import Retrieved, retrieve
from trainer.sources.pictures import BadImage, Pixels, decode

if TYPE_CHECKING:
    from trainer.evaluation.loading import Loaded

_SALT = 402
_EXAMPLES = 8
_SHOWN = 5
_HELD = 64  # encoded pictures read at once
ALL = "all"


class Settings(BaseModel):
    """Settings of ``trainer eval RUN retrieval``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="a committed dataset with image and text, such as out/curated")
    limit: int = Field(1000, ge=2, le=100_000, description="images, chosen by a hash of their ids")
    seed: int = Field(0, ge=0, description="of the choice")
    least: int = Field(20, ge=2, description="images that a language needs to be scored")
    images: Literal["column", "generated"] = Field(
        "column", description="from image_column, or rendered from the URLs of the generated pool"
    )
    image_column: str = Field("image", description="images as struct<bytes, path>")
    text_column: str = Field("text", description="captions")
    language_column: str = Field("language", description="language of each caption")
    size: int = Field(
        96, ge=SIZES[0], le=SIZES[1], description="side of a rendering, as in training"
    )


@dataclass(frozen=True)
class Pairs:
    """Rows of the chosen images: ids and URLs [N]; of each text its image, words and language [M]."""

    ids: list[str]
    urls: list[str | None]
    owner: Ints
    texts: list[str]
    languages: list[str]


def evaluate(loaded: Loaded, settings: Settings) -> dict[str, Any]:
    """Score all texts together and each language; the headline is text to image recall at 1 of all.

    ``unreadable`` images are left out with their texts; ``few`` names languages with too few images.
    UsageError for a missing column, InputError if nothing is left to score.
    """
    dataset = open_dataset(settings.path)
    _check(dataset, settings)
    rows = choose(dataset, settings)
    pairs = _pairs(dataset, settings, rows)
    bad: set[int] = set()
    pictures = _pictures(dataset, settings, rows, bad)
    images = loaded.image_features(pictures, len(pairs.ids))
    texts = loaded.text_features(pairs.texts)
    good = ~np.isin(pairs.owner, sorted(bad))
    scores: dict[str, Retrieved] = {}
    few: dict[str, int] = {}
    languages = np.array(pairs.languages)
    for language in [ALL, *sorted(set(pairs.languages))]:
        kept = good if language == ALL else good & (languages == language)
        count = len(np.unique(pairs.owner[kept]))
        if count >= (2 if language == ALL else settings.least):
            scores[language] = _scored(images, texts, pairs, np.flatnonzero(kept))
        else:
            few[language] = count
    if ALL not in scores:
        raise InputError(f"{settings.path}: fewer than 2 images with a text and readable bytes")
    return {
        "headline": {
            "metric": "text to image recall at 1, all languages",
            **scores[ALL].recall("text_to_image", 1).to_json(),
            "chance": scores[ALL].chance,
        },
        "languages": {language: one.scores() for language, one in scores.items()},
        "few": few,
        "unreadable": len(bad),
        "dataset": dataset.manifest.digest,
        "examples": _examples(images, texts, pairs, good),
    }


def choose(dataset: Dataset, settings: Settings) -> dict[int, Ints]:
    """Return the rows of the chosen images by shard: the images of the least hashes of (seed, id)."""
    ids = [table["image_id"].combine_chunks() for table in dataset.tables(["image_id"])]
    if not ids:
        raise InputError(f"{settings.path} has no rows")
    every = pa.concat_arrays(ids)
    unique = every.unique()
    least = np.argsort(uniform(settings.seed, 0, unique, _SALT), kind="stable")[: settings.limit]
    numbers = pa.compute.index_in(every, value_set=unique.take(pa.array(np.sort(least))))
    rows = np.flatnonzero(numbers.is_valid().to_numpy(zero_copy_only=False))
    ends = np.cumsum([shard.rows for shard in dataset.shards()])
    found = {}
    for shard, part in enumerate(np.split(rows, np.searchsorted(rows, ends)[:-1])):
        if len(part):
            found[shard] = part - (ends[shard - 1] if shard else 0)
    return found


def _check(dataset: Dataset, settings: Settings) -> None:
    names = dataset.schema.names
    picture = "url" if settings.images == "generated" else settings.image_column
    for name in ("image_id", settings.text_column, settings.language_column, picture):
        if name not in names:
            more = "; images=generated renders the URLs of the generated pool"
            raise UsageError(
                f"{settings.path} has no column {name!r} (it is {dataset.spec.name}: "
                f"{', '.join(names)}){more if name == settings.image_column else ''}"
            )


def _pairs(dataset: Dataset, settings: Settings, rows: dict[int, Ints]) -> Pairs:
    own = ["url"] if "url" in dataset.schema.names else []
    columns = ["image_id", settings.text_column, settings.language_column, *own]
    number: dict[bytes, int] = {}
    urls: list[str | None] = []
    owner, texts, languages = [], [], []
    for shard, part in rows.items():
        for row in dataset.take(shard, part, list(dict.fromkeys(columns))).to_pylist():
            if row["image_id"] not in number:
                number[row["image_id"]] = len(number)
                urls.append(row.get("url"))
            owner.append(number[row["image_id"]])
            texts.append(row[settings.text_column] or "")
            languages.append(row[settings.language_column] or "unknown")
    ids = [image.hex() for image in number]
    return Pairs(ids, urls, np.array(owner), texts, languages)


def _pictures(
    dataset: Dataset, settings: Settings, rows: dict[int, Ints], bad: set[int]
) -> Iterator[Pixels]:
    """The picture of each image, in the order of their numbers; a grey one stands for a bad one."""
    column = "url" if settings.images == "generated" else settings.image_column
    seen: set[bytes] = set()
    for shard, part in rows.items():
        ids = dataset.take(shard, part, ["image_id"])["image_id"].to_pylist()
        fresh = []
        for row, image in zip(part.tolist(), ids, strict=True):
            if image not in seen:
                seen.add(image)
                fresh.append(row)
        done = len(seen) - len(fresh)
        for start in range(0, len(fresh), _HELD):
            values = dataset.take(shard, fresh[start : start + _HELD], [column])[column]
            for i, value in enumerate(values.to_pylist(), done + start):
                try:
                    yield decode(_encoded(value, settings))
                except BadImage:
                    bad.add(i)
                    yield np.full((8, 8, 3), 127, np.uint8)


def _encoded(value: Any, settings: Settings) -> bytes:
    if settings.images == "generated":
        return render(value, settings.size)
    data = value.get("bytes") if isinstance(value, dict) else value
    if not data:
        raise BadImage("no_image", "the row has no image")
    return bytes(data)


def _scored(images: Features, texts: Features, pairs: Pairs, kept: Ints) -> Retrieved:
    mine, owner = np.unique(pairs.owner[kept], return_inverse=True)
    words = np.array([pairs.texts[i] for i in kept])
    return retrieve(images[mine], texts[kept], owner, np.unique(words, return_inverse=True)[1])


def _examples(
    images: Features, texts: Features, pairs: Pairs, good: np.ndarray
) -> list[dict[str, Any]]:
    """A few texts with the images nearest to them, evenly spread over the rows."""
    candidates = np.unique(pairs.owner[good])
    rows = np.flatnonzero(good)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, _EXAMPLES).astype(np.int64))]
    found = nearest(texts[chosen], images[candidates], _SHOWN)
    return [
        {
            "language": pairs.languages[row],
            "text": pairs.texts[row],
            "images": [
                {
                    "image_id": pairs.ids[image],
                    "url": pairs.urls[image],
                    "right": bool(image == pairs.owner[row]),
                }
                for image in candidates[near]
            ],
        }
        for row, near in zip(chosen.tolist(), found, strict=True)
    ]
