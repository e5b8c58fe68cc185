"""Evaluation `pool`: zero-shot classification of the generated pool's held-out renderings.

Images come from the pool's test part: numbers that no training part contains, on backgrounds of
families that training never shows (`curation.pool.scene`). Prompts are a class's name and the pool's
wordings that say the name and nothing else, in each language. Every class has equally many images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from curation.pool import labels as pool_labels
from curation.pool import scene
from curation.pool import stamps as stamp_files
from curation.pool.config import PoolConfig
from curation.pool.generate import LANGUAGES, chosen_concepts
from curation.pool.labels import Concept
from curation.pool.phrases import PHRASES
from curation.pool.phrases_more import MORE_PHRASES
from curation.pool.render import SIZES, render
from curation.pool.scene import TEST_SHARE
from schemas.command_line import suggest
from schemas.errors import CheckFailed, UsageError
from trainer.evaluation import pool_counts, ranking, zero_shot
from trainer.evaluation.pool_counts import ENGLISH, EnglishCounts
from trainer.evaluation.ranking import Features, Ints
from trainer.sources.pictures import Pixels, decode

if TYPE_CHECKING:
    from trainer.evaluation.loading import Loaded

_MOST_RECORDS = 1 << 24
_EXAMPLES = 8
_SHOWN = 5


class Settings(BaseModel):
    """Settings of ``trainer eval RUN pool``."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, description="of the pool whose held-out part is shown")
    images: int = Field(8, ge=1, le=200, description="images of each class")
    size: int = Field(
        96, ge=SIZES[0], le=SIZES[1], description="side of a rendering, as in training"
    )
    concepts: int = Field(0, ge=0, description="pool.concepts= of the pool (0: all): the classes")
    languages: list[str] | None = Field(
        None, description="languages of the prompts (default: all of the pool)"
    )
    classes: Literal["all", "tail"] = Field(
        "all", description="classes that count: all, or those with an English count below t of run="
    )
    run: str | None = Field(
        None,
        description="a `dataflows run metaclip2`: its counts, and that it saw none of the images",
    )


@dataclass(frozen=True)
class HeldOut:
    """The renderings: URL and class number of each, ``per_class`` of every class, by class."""

    urls: list[str]
    labels: Ints


def evaluate(loaded: Loaded, settings: Settings) -> dict[str, Any]:
    """Classify the held-out renderings with the prompts of each language.

    The result's ``classes`` (English names) orders every per-class list: ``english_count`` and
    ``tail`` (with run=), and of each language ``per_class``, the accuracy (None without a name).
    Raises UsageError for unknown languages and for classes=tail without run=, InputError for a run
    that cannot be read, CheckFailed if the run's pool holds one of the images.
    """
    languages = _languages(settings)
    if settings.classes == "tail" and settings.run is None:
        raise UsageError(
            "classes=tail: give run=DATA_RUN too, whose English counts say what is tail"
        )
    concepts = _concepts(settings.concepts)
    names = [concept.names.get(ENGLISH, concept.name) for concept in concepts]
    counted = pool_counts.english_counts(settings.run) if settings.run else None
    held = held_out(settings.seed, settings.images, concepts)
    _refuse_seen(held, settings)
    kept = _kept(counted, names, settings)
    images = loaded.image_features(
        _pictures(held.urls, settings.size), len(held.urls), "renderings"
    )
    found = {
        language: _language(loaded, language, concepts, images, held, kept)
        for language in languages
    }
    first = ENGLISH if ENGLISH in found else languages[0]
    return {
        "headline": {
            "metric": f"macro zero-shot accuracy, {settings.classes} classes, prompts in {first}",
            **found[first]["macro"],
            "chance": found[first]["chance"],
        },
        "languages": {key: _public(value) for key, value in found.items()},
        "classes": [concept.name for concept in concepts],
        **(_counted(counted, names) if counted else {}),
        "images_per_class": settings.images,
        "examples": _examples(loaded, found, concepts, images, held),
    }


def check(result: dict[str, Any]) -> None:
    """Raise CheckFailed if English has t = 1 in the data run: then balancing kept no tail."""
    if result.get("t") == 1:
        raise CheckFailed(
            "t = 1 in English: too few texts for so many entries, so balancing left no tail to learn "
            "from; use more records, or fewer metadata entries"
        )


def _concepts(count: int) -> list[Concept]:
    """The pool's concepts, numbered as the classes are."""
    chosen = chosen_concepts(stamp_files.load(), count)
    every = pool_labels.concepts()
    return [replace(every[number], number=place) for place, number in enumerate(chosen.tolist())]


def held_out(seed: int, images: int, concepts: Sequence[Concept]) -> HeldOut:
    """The first ``images`` test renderings of each class, by ascending number."""
    records = round(1.5 * images * len(concepts) / TEST_SHARE)
    place = {stamp: concept.number for concept in concepts for stamp in concept.stamps}
    config = PoolConfig(concepts=len(concepts))
    while records <= _MOST_RECORDS:
        found: list[list[str]] = [[] for _ in concepts]
        for url in pool_labels.held_out_urls(seed, records, config).to_pylist():
            found[place[scene.parse(url).stamp]].append(url)
        if min(map(len, found)) >= images:
            chosen = [url for urls in found for url in urls[:images]]
            return HeldOut(chosen, np.repeat(np.arange(len(concepts)), images))
        records *= 2
    raise UsageError(
        f"images={images}: the pool's first {_MOST_RECORDS:,} records hold fewer a class"
    )


def prompts(concept: Concept, language: str) -> list[str]:
    """Texts that name a class in a language: its name, and the wordings with nothing but a name.

    Empty if the class has no name in the language.
    """
    name = concept.names.get(language)
    if not name:
        return []
    one = {**PHRASES, **MORE_PHRASES}[language]
    plain = [text for text in one.describe if text.count("{") == 1 and "{n}" in text]
    return [name, *(text.replace("{n}", name) for text in plain)]


def _languages(settings: Settings) -> list[str]:
    chosen = settings.languages if settings.languages is not None else list(LANGUAGES)
    if not chosen:
        raise UsageError("languages=[]: give at least one, as in languages=[en,de]")
    for language in chosen:
        if language not in LANGUAGES:
            raise UsageError(
                f"languages={language}: the pool has no such language.{suggest(language, LANGUAGES)}"
            )
    return list(dict.fromkeys(chosen))


def _refuse_seen(held: HeldOut, settings: Settings) -> None:
    if settings.run and (hits := pool_counts.seen(settings.run, held.urls)):
        raise CheckFailed(
            f"run={settings.run}: its pool holds {hits} of the {len(held.urls)} images to be "
            "classified; make it with pool.split=train, or give another seed= here"
        )


def _kept(counted: EnglishCounts | None, names: Sequence[str], settings: Settings) -> Ints | None:
    if settings.classes == "all" or counted is None:
        return None
    kept = np.flatnonzero(counted.tail(names))
    if len(kept) < 2:
        raise UsageError(
            f"classes=tail: {len(kept)} classes have an English count below t = {counted.t} in "
            f"{settings.run}; a larger pool, or a larger p, has more"
        )
    return kept


def _pictures(urls: Sequence[str], size: int) -> Iterator[Pixels]:
    for url in urls:
        yield decode(render(url, size))


def _language(
    loaded: Loaded,
    language: str,
    concepts: Sequence[Concept],
    images: Features,
    held: HeldOut,
    kept: Ints | None,
) -> dict[str, Any]:
    """Scores with the prompts of one language; classes that share a name there are one answer."""
    texts = [tuple(prompts(concept, language)) for concept in concepts]
    answers = list(dict.fromkeys(text for text in texts if text))
    group = np.array([answers.index(text) if text else -1 for text in texts])
    features = zero_shot.class_features(loaded, answers, f"prompts in {language}")
    mine = group[held.labels] >= 0
    labels = held.labels[mine]
    pairs = (np.arange(len(labels)), group[labels])
    rank = ranking.first_right(images[mine], features, pairs)
    classified = zero_shot.Classified(labels, rank, len(concepts))
    scored = labels if kept is None else labels[np.isin(labels, kept)]
    return {
        **classified.scores(kept),
        "candidates": len(answers),
        "chance": zero_shot.chance(scored, group),
        "per_class": classified.per_class(),
        "_features": features,
        "_group": group,
    }


def _public(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if not key.startswith("_")}


def _counted(counted: EnglishCounts, names: Sequence[str]) -> dict[str, Any]:
    return {
        "t": counted.t,
        "english_count": [counted.of_name(name) for name in names],
        "tail": counted.tail(names),
        "balance": counted.digest,
    }


def _examples(
    loaded: Loaded,
    found: dict[str, dict[str, Any]],
    concepts: Sequence[Concept],
    images: Features,
    held: HeldOut,
) -> list[dict[str, Any]]:
    """A few prompts with the renderings nearest to them: classes and languages evenly spread."""
    examples = []
    languages = list(found)
    for i in range(_EXAMPLES):
        language = languages[i % len(languages)]
        concept = concepts[(2 * i + 1) * len(concepts) // (2 * _EXAMPLES)]
        group = found[language]["_group"]
        if group[concept.number] < 0:
            continue
        prompt = found[language]["_features"][[group[concept.number]]]
        nearest = ranking.nearest(prompt, images, _SHOWN)[0]
        examples.append(
            {
                "language": language,
                "text": concept.names[language],
                "images": [
                    {
                        "url": held.urls[image],
                        "class": concepts[held.labels[image]].name,
                        "right": bool(group[held.labels[image]] == group[concept.number]),
                    }
                    for image in nearest
                ],
            }
        )
    return examples
