"""Evaluation `babel_imagenet`: ImageNet's classes named in many languages, from its public files.

The layout (arXiv:2306.08658): ``babel_imagenet.json`` (or ``babel_imagenet-298.json``), a JSON object
``{language: [[class numbers], [names]]}``, and ImageNet's validation images in folders named by synset
(``val/n01440764/*.JPEG``), whose sorted order numbers the classes. A language is scored on the images
of its own classes. Meta CLIP 2 reports the mean over languages (spec section 8).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from schemas.command_line import suggest
from schemas.errors import InputError, UsageError
from trainer.evaluation import pictures_of
from trainer.evaluation.intervals import mean_interval
from trainer.evaluation.ranking import Ints
from trainer.evaluation.zero_shot import Classified, chance, class_features, classify

if TYPE_CHECKING:
    from trainer.evaluation.loading import Loaded

NAMES = ("babel_imagenet.json", "babel_imagenet-298.json")
_SYNSET = re.compile(r"n\d{8}")
_PICTURE = (".jpeg", ".jpg", ".png")

Labels = dict[str, tuple[list[int], list[str]]]


class Settings(BaseModel):
    """Settings of ``trainer eval RUN babel_imagenet``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="folder with babel_imagenet.json, or that file")
    images: str | None = Field(
        None, description="folder of ImageNet's validation synsets (default: val/ beside the file)"
    )
    prompts: str | None = Field(
        None, description="JSON {language: [template with {}]} (default: the names alone)"
    )
    languages: list[str] | None = Field(None, description="languages to score (default: all)")


def evaluate(loaded: Loaded, settings: Settings) -> dict[str, Any]:
    """Score each language; the headline is the mean over languages of top-1 accuracy.

    InputError if a file is not of the layout, or a class has no image.
    """
    file = find(Path(settings.path))
    labels = read(file)
    templates = _templates(settings.prompts)
    chosen = settings.languages or list(labels)
    for language in chosen:
        if language not in labels:
            raise UsageError(f"languages={language}: not in the file.{suggest(language, labels)}")
    folder = Path(settings.images) if settings.images else file.parent / "val"
    synsets = read_images(folder)
    wanted = sorted({number for language in chosen for number in labels[language][0]})
    if wanted[-1] >= len(synsets):
        raise InputError(
            f"{folder} has {len(synsets)} synset folders, but {file} names class {wanted[-1]}; expected "
            "all 1,000 synsets of ImageNet's validation set"
        )
    files = [picture for number in wanted for picture in synsets[number]]
    owner = np.repeat(wanted, [len(synsets[number]) for number in wanted])
    images = loaded.image_features(pictures_of.of_files(files), len(files))
    found = {}
    for language in chosen:
        numbers, names = labels[language]
        one = [t.replace("{}", name) for name in names for t in templates.get(language, ["{}"])]
        each = len(one) // len(names)
        texts = [one[i : i + each] for i in range(0, len(one), each)]
        mine = np.flatnonzero(np.isin(owner, numbers))
        place = np.full(wanted[-1] + 1, -1)
        place[numbers] = np.arange(len(numbers))
        features = class_features(loaded, texts, f"names in {language}")
        found[language] = (classify(images[mine], features, place[owner[mine]]), mine)
    return _result(found)


def _result(found: dict[str, tuple[Classified, Ints]]) -> dict[str, Any]:
    hits = np.concatenate([one.hits for one, _ in found.values()])
    weights = np.concatenate([np.full(len(mine), 1 / len(mine)) for _, mine in found.values()])
    image = np.concatenate([mine for _, mine in found.values()])
    chances = {language: chance(one.labels) for language, (one, _) in found.items()}
    return {
        "headline": {
            "metric": f"top-1 accuracy, mean over {len(found)} languages",
            **mean_interval(hits, weights, image).to_json(),
            "chance": float(np.mean(list(chances.values()))),
        },
        "languages": {
            language: {**one.scores(), "chance": chances[language]}
            for language, (one, _) in found.items()
        },
    }


def find(path: Path) -> Path:
    """Return the file of names: the path itself, or one of `NAMES` in the folder."""
    for file in (path, *(path / name for name in NAMES)):
        if file.is_file():
            return file
    raise InputError(f"{path}: expected {' or '.join(NAMES)} there; found neither")


def read(file: Path) -> Labels:
    """Read the names. InputError naming the language that is not as expected."""
    found: Labels = {}
    for language, value in _json(file).items():
        try:
            numbers, names = value
            right = len(numbers) == len(names) > 0 and len(set(numbers)) == len(numbers)
            right &= all(type(n) is int and n >= 0 for n in numbers)
            right &= all(isinstance(name, str) for name in names)
        except (ValueError, TypeError):
            right = False
        if not right:
            raise InputError(
                f"{file}: {language}: expected [[class numbers], [names]], equally many and each class "
                f"once; found {str(value)[:80]}"
            )
        found[language] = (numbers, names)
    if not found:
        raise InputError(f"{file}: no language in it")
    return found


def read_images(folder: Path) -> list[list[Path]]:
    """Return the pictures of each synset, synsets and pictures in ascending order of name."""
    try:
        places = sorted(place for place in folder.iterdir() if _SYNSET.fullmatch(place.name))
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; expected folders named by synset, such as n01440764, with "
            "ImageNet's validation images"
        ) from None
    found = [sorted(f for f in place.iterdir() if f.suffix.lower() in _PICTURE) for place in places]
    for place, pictures in zip(places, found, strict=True):
        if not pictures:
            raise InputError(f"{place}: no image in it; expected ImageNet's validation images")
    if not found:
        raise InputError(f"{folder}: no folder named by synset, such as n01440764, in it")
    return found


def _templates(path: str | None) -> dict[str, list[str]]:
    if path is None:
        return {}
    found = _json(Path(path))
    for language, templates in found.items():
        if not isinstance(templates, list) or not all("{}" in str(t) for t in templates):
            raise InputError(f"{path}: {language}: expected templates with {{}} for the name")
    return {
        language: [str(t) for t in templates] for language, templates in found.items() if templates
    }


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{file}: expected a JSON object by language: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected a JSON object by language; found {str(found)[:60]}")
    return found
