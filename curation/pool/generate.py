"""Records of the generated pool: a pure function of (seed, number, configuration).

Any split of the numbers into ranges, in any order, gives the same rows. Language and concept are
drawn independently for each image, and each language has its own ranking of the concepts, so the
pool worldwide is not its English part translated (spec section 11, pilots).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.pool import scene, wording
from curation.pool import stamps as stamp_files
from curation.pool.config import LANGUAGE_SHARES, PoolConfig
from curation.pool.scene import draws
from curation.pool.stamps import StampSet
from schemas.errors import UsageError
from schemas.ids import id128, image_ids_of_urls
from schemas.table_schemas import RECORDS, TEXTS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KEYS = ("alt", "title", "data-image-title")
LANGUAGES = tuple(LANGUAGE_SHARES)
_PRESENT = (1.0, 0.18, 0.05)  # probability that an image has a text under each key
_SAME_AS_ALT = 0.4  # of the further texts
_OTHER_LANGUAGE = 0.05  # texts that are not in the language of their page
_LARGEST = 10**12  # number of a record
_MOST_ROWS = 2_000_000  # of one table: its texts must fit Arrow's 2 GB strings

_LANGUAGE, _CONCEPT, _STAMP, _DUPLICATE, _TARGET = range(201, 206)
_HAS, _SAME, _OTHER, _TONGUE, _KIND, _TEMPLATE, _FILL = range(210, 217)
_RANK = 220


@dataclass(frozen=True)
class _Images:
    """Images of a range of numbers, one array element each; `content` is the image's own number."""

    content: Ints
    texts: Ints  # the number that decides the texts
    test: npt.NDArray[np.bool_]
    language: Ints
    stamp: Ints
    colour: Ints


class _Plan:
    """What does not depend on the number: rankings, cumulated shares, templates."""

    def __init__(self, seed: int, config: PoolConfig, stamps: StampSet) -> None:
        self.stamps = stamps
        self.wording = wording.Wording(stamps, LANGUAGES)
        self.languages = np.cumsum(list(LANGUAGE_SHARES.values()))
        self.kinds = np.cumsum(wording.kind_shares(config.noise))
        self.chosen = chosen_concepts(stamps, config.concepts)
        n = len(self.chosen)
        weights = 1.0 / np.arange(1, n + 1) ** config.zipf
        self.ranks = np.cumsum(weights) / weights.sum()
        self.ranking = _rankings(seed, n, config.skew)
        order = np.argsort(stamps.concept_of, kind="stable")
        self.members = order
        self.count = np.bincount(stamps.concept_of, minlength=len(stamps.concepts))
        self.first = np.cumsum(self.count) - self.count


def generate(
    seed: int,
    start: int,
    count: int,
    config: PoolConfig | None = None,
    stamps: StampSet | None = None,
) -> pa.Table:
    """Records number `start` to `start + count - 1` as a RECORDS table, without image bytes.

    Rows of the part that `config.split` leaves out are missing, so a table may have fewer than
    `count` rows. `position` is the number, `file` 0. About 150k records/s on one core. Raises
    UsageError when the range is not within 0 to 10**12 or has more than 2 million numbers.
    """
    if count > _MOST_ROWS:
        raise UsageError(f"{count} records in one table; generate at most {_MOST_ROWS} at a time")
    if start < 0 or count < 0 or start + count > _LARGEST:
        raise UsageError(f"records {start} to {start + count} are not between 0 and {_LARGEST}")
    config = config or PoolConfig()
    plan = _plan(seed, config, stamps or stamp_files.load())
    numbers = np.arange(start, start + count, dtype=np.int64)
    content, texts = _duplicates(seed, numbers, config)
    if config.split != "all":
        wanted = scene.is_test(seed, content) == (config.split == "test")
        numbers, content, texts = numbers[wanted], content[wanted], texts[wanted]
    images = _images(seed, content, texts, plan)
    return _table(seed, numbers, images, plan, config)


def chosen_concepts(stamps: StampSet, count: int) -> Ints:
    """Numbers of the concepts that a pool of `count` concepts has, ascending: int64[count].

    The first by a hash of their names, so a larger count only adds. 0 means all. Raises UsageError
    for more concepts than the stamps have.
    """
    total = len(stamps.concepts)
    if count > total:
        raise UsageError(f"pool.concepts={count}: the stamps have {total} concepts")
    names = [id128(b"concept", name.encode()) for name in stamps.concepts]
    order = sorted(range(total), key=names.__getitem__)
    return np.array(sorted(order[: count or total]), np.int64)


@functools.lru_cache(maxsize=8)
def _plan(seed: int, config: PoolConfig, stamps: StampSet) -> _Plan:
    return _Plan(seed, config, stamps)


def _rankings(seed: int, concepts: int, skew: float) -> Ints:
    """Concept at each rank, by language: int64[languages, concepts]."""
    common = np.argsort(np.argsort(draws(seed, np.arange(concepts), _RANK)))
    ranking = np.empty((len(LANGUAGES), concepts), np.int64)
    for i in range(len(LANGUAGES)):
        u, v = (draws(seed, np.arange(concepts), _RANK + 1, 2 * i + j) for j in range(2))
        normal = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)
        ranking[i] = np.argsort(np.log(common + 1.0) + skew * normal, kind="stable")
    return ranking


def _duplicates(seed: int, numbers: Ints, config: PoolConfig) -> tuple[Ints, Ints]:
    """Number of the image, and number that decides the texts, of each record.

    Only odd numbers repeat an image and only even ones are repeated: no chain has to be followed.
    Half of the repeats bring texts of their own.
    """
    u = draws(seed, numbers, _DUPLICATE)
    repeats = (numbers % 2 == 1) & (u < 2 * config.duplicates)
    target = 2 * (draws(seed, numbers, _TARGET) * ((numbers + 1) // 2)).astype(np.int64)
    content = np.where(repeats, target, numbers)
    return content, np.where(repeats & (u < config.duplicates), target, numbers)


def _images(seed: int, content: Ints, texts: Ints, plan: _Plan) -> _Images:
    test = scene.is_test(seed, content)
    language = _pick(plan.languages, draws(seed, content, _LANGUAGE))
    u = draws(seed, content, _CONCEPT)
    ranked = plan.ranking[language, _pick(plan.ranks, u)]
    even = (u * len(plan.chosen)).astype(np.int64)
    concept = plan.chosen[np.where(test, even, ranked)]
    within = (draws(seed, content, _STAMP) * plan.count[concept]).astype(np.int64)
    stamp = plan.members[plan.first[concept] + within]
    return _Images(content, texts, test, language, stamp, scene.colour_index(seed, content))


def _texts(seed: int, key: int, images: _Images, plan: _Plan, config: PoolConfig) -> pa.Array:
    """One text of every image for one of `KEYS`: string[n]."""
    numbers = images.texts
    # Mixing a text's language from the shares of all keeps each language's total share.
    other = (draws(seed, numbers, _OTHER, key) < _OTHER_LANGUAGE * config.noise) & ~images.test
    drawn = _pick(plan.languages, draws(seed, numbers, _TONGUE, key))
    language = np.where(other, drawn, images.language)
    kind = _pick(plan.kinds, draws(seed, numbers, _KIND, key))
    kind = np.where(images.test, wording.KINDS.index("test"), kind)
    template = plan.wording.choose(kind, language, draws(seed, numbers, _TEMPLATE, key))
    fills = [draws(seed, numbers, _FILL, 3 * key + i) for i in range(3)]
    return plan.wording.write(template, language, images.stamp, images.colour, fills)


def _table(seed: int, numbers: Ints, images: _Images, plan: _Plan, config: PoolConfig) -> pa.Table:
    written = [_texts(seed, key, images, plan, config) for key in range(len(KEYS))]
    present = np.empty((len(numbers), len(KEYS)), bool)
    for key, share in enumerate(_PRESENT):
        present[:, key] = draws(seed, images.texts, _HAS, key) < share
        if key:
            present[:, key] &= ~images.test
            same = draws(seed, images.texts, _SAME, key) < _SAME_AS_ALT
            written[key] = pc.if_else(pa.array(same), written[0], written[key])
    # Texts of all keys one after another, taken in row order where present.
    rows, keys = np.nonzero(present)
    text = wording.take(pa.concat_arrays(written), keys * len(numbers) + rows)
    fields: list[pa.Array] = [wording.take(pa.array(KEYS), keys), text]
    pairs = pa.StructArray.from_arrays(fields, fields=list(TEXTS.value_type))
    offsets: Any = pa.array(np.concatenate([[0], np.cumsum(present.sum(1))]).astype(np.int32))
    texts = pa.ListArray.from_arrays(offsets, pairs)
    stamp_ids = pa.array([stamp.id for stamp in plan.stamps.stamps])
    url = wording.join(
        f"generated://pool/{seed}",
        pa.array(images.content).cast(pa.string()),
        wording.take(stamp_ids, images.stamp),
        separator="/",
    )
    columns = {
        "image_id": image_ids_of_urls(url),
        "url": url,
        "texts": texts,
        "file": pa.array(np.zeros(len(numbers), np.int32)),
        "position": pa.array(numbers),
    }
    return RECORDS.validate(pa.table(columns))


def _pick(cumulated: Floats, u: Floats) -> Ints:
    """Index of the class that each uniform number falls into."""
    return np.minimum(np.searchsorted(cumulated, u, side="right"), len(cumulated) - 1)
