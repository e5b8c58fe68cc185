"""Evaluation `xm3600`: Crossmodal-3600, recall at 1 both ways in each locale, from its public files.

The layout (arXiv:2205.12522): ``captions.jsonl``, one JSON object an image with ``image/key``,
``image/locale`` and, for each locale, ``{"caption": [text, ...]}``; and ``images/KEY.jpg``. The
protocol of Meta CLIP 2 (spec section 8): all captions of a locale against all images, the mean over
locales.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from schemas.command_line import suggest
from schemas.errors import InputError, UsageError
from trainer.evaluation import pictures_of
from trainer.evaluation.intervals import Estimate, mean_interval
from trainer.evaluation.retrieval import Retrieved, retrieve

if TYPE_CHECKING:
    from trainer.evaluation.loading import Loaded

CAPTIONS = "captions.jsonl"


class Settings(BaseModel):
    """Settings of ``trainer eval RUN xm3600``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="folder with captions.jsonl and images/")
    locales: list[str] | None = Field(None, description="locales to score (default: all)")


@dataclass(frozen=True)
class Captioned:
    """Image keys in the order of the file, and of each locale its captions, image by image."""

    keys: list[str]
    captions: dict[str, list[list[str]]]


def evaluate(loaded: Loaded, settings: Settings) -> dict[str, Any]:
    """Score the locales; the headline is text to image recall at 1, ``overall`` has both ways.

    InputError if the files are not those of Crossmodal-3600, or an image is missing.
    """
    folder = Path(settings.path)
    found = read(folder / CAPTIONS)
    files = [folder / "images" / f"{key}.jpg" for key in found.keys]
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(
            f"{folder}: {len(missing)} of {len(files)} images are missing, such as {missing[0]}; "
            "unpack the images of Crossmodal-3600 there"
        )
    locales = _chosen(settings, found)
    images = loaded.image_features(pictures_of.of_files(files), len(files))
    scores: dict[str, Retrieved] = {}
    for locale in locales:
        texts = [text for one in found.captions[locale] for text in one]
        owner = np.repeat(np.arange(len(files)), [len(one) for one in found.captions[locale]])
        features = loaded.text_features(texts, f"captions in {locale}")
        scores[locale] = retrieve(images, features, owner)
    ways = {way: mean_recall(list(scores.values()), way) for way in WAYS}
    return {
        "headline": {
            "metric": f"text to image recall at 1, mean over {len(locales)} locales",
            **ways["text_to_image"].to_json(),
            "chance": float(np.mean([one.chance for one in scores.values()])),
        },
        "overall": {way: {"R@1": estimate.to_json()} for way, estimate in ways.items()},
        "languages": {locale: retrieved.scores() for locale, retrieved in scores.items()},
    }


WAYS = ("text_to_image", "image_to_text")


def mean_recall(scores: list[Retrieved], way: str) -> Estimate:
    """The mean over locales of recall at 1; what all locales say of one image is one observation."""
    hits, weights, clusters = [], [], []
    for one in scores:
        rank = one.text_to_image if way == "text_to_image" else one.image_to_text
        hits.append(rank == 0)
        weights.append(np.full(len(rank), 1 / len(rank)))
        clusters.append(one.owner if way == "text_to_image" else np.arange(len(rank)))
    return mean_interval(np.concatenate(hits), np.concatenate(weights), np.concatenate(clusters))


def read(file: Path) -> Captioned:
    """Read ``captions.jsonl``. InputError naming the line that is not as expected."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(
            f"{file}: {error.strerror}; expected the captions of Crossmodal-3600, one JSON object a line"
        ) from None
    keys: list[str] = []
    captions: dict[str, list[list[str]]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            key, own = row["image/key"], row["image/locale"]
            of = {name: value["caption"] for name, value in row.items() if "/" not in name}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}, line {number}: expected an object with image/key, image/locale and for each "
                f"locale {{caption: [...]}}; found {line[:80].decode(errors='replace')!r} ({error!r})"
            ) from None
        if not isinstance(key, str) or Path(key).name != key or own not in of:
            raise InputError(
                f"{file}, line {number}: image/key {key!r} of locale {own!r} is no key"
            )
        for name, texts in of.items():
            if not texts or not all(isinstance(text, str) for text in texts):
                raise InputError(f"{file}, line {number}: {name} has no list of captions")
            captions.setdefault(name, [[] for _ in keys]).append(texts)
        if short := [name for name in captions if name not in of]:
            raise InputError(f"{file}, line {number}: image {key} has no captions in {short[0]}")
        keys.append(key)
    if len(set(keys)) != len(keys) or not keys:
        raise InputError(
            f"{file}: {len(keys)} lines for {len(set(keys))} images; expected one each"
        )
    for name, of_images in captions.items():
        if not all(of_images):
            raise InputError(f"{file}: not every image has captions in {name}")
    return Captioned(keys, captions)


def _chosen(settings: Settings, found: Captioned) -> list[str]:
    locales = settings.locales or sorted(found.captions)
    for locale in locales:
        if locale not in found.captions:
            raise UsageError(f"locales={locale}: not in the file.{suggest(locale, found.captions)}")
    return locales
