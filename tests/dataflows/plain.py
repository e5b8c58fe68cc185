"""The paper's algorithm in plain Python, over lists and dictionaries: what a run must equal.

Nothing of the pipeline is used but the definitions that its data depend on: the brute-force
matcher, ids, and the function from (seed, epoch, id) to a number.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from curation.metaclip2.language import LANGUAGE_MAP, model_path
from curation.metaclip2.reference import occurs
from curation.metaclip2.text import normalise, space_entry, space_text
from schemas.ids import ID_TYPE, SALT_DRAW, SALT_PICK, pair_id, uniform

Counts = dict[str, Counter[int]]
Find = Callable[[str, str], list[int]]


@cache
def _model() -> Any:
    import fasttext

    return fasttext.load_model(str(model_path()))


@cache
def label(text: str) -> str:
    """The language that the model names, asked for this text alone."""
    labels, _ = _model().predict(text, k=1)
    return labels[0].removeprefix("__label__") if labels else ""


def key_of(text: str) -> str:
    """The metadata key of a text's language."""
    return LANGUAGE_MAP.get(label(text), "other")


def cleaned(text: str) -> str:
    """A text as the pool holds it."""
    return text.replace("\n", " ").replace("\r", " ").strip()


@dataclass(frozen=True)
class Pair:
    """A text of the pool with its image, its metadata key and the entries that occur in it."""

    pair: bytes
    image: bytes
    text: str
    key: str
    entries: tuple[int, ...]


def _first(keys: Iterable[str]) -> dict[str, int]:
    """Key to entry id; of equal keys the first one counts, and blank ones do not."""
    ids: dict[str, int] = {}
    for i, key in enumerate(keys):
        if key.strip(" "):
            ids.setdefault(key, i)
    return ids


def repaired(metadata: Mapping[str, Sequence[str]]) -> Find:
    """(key, text) to entry ids, entry by entry, by the rules of ``match=repaired``."""
    entries = {name: _first(map(normalise, texts)) for name, texts in metadata.items()}

    @cache
    def find(key: str, text: str) -> list[int]:
        text = normalise(text)
        # Only what is a part of the text at all can occur in it: the rest need not be asked.
        parts = [(entry, i) for entry, i in entries.get(key, {}).items() if entry in text]
        return sorted(i for entry, i in parts if occurs(entry, text))

    return find


def official(metadata: Mapping[str, Sequence[str]]) -> Find:
    """The same by the released code: both spaced, then a search for the one in the other."""
    entries = {
        name: _first(space_entry(entry, "isolating") for entry in texts)
        for name, texts in metadata.items()
    }

    @cache
    def find(key: str, text: str) -> list[int]:
        text = space_text(text)
        return sorted(i for entry, i in entries.get(key, {}).items() if entry in text)

    return find


def pairs_of(
    records: Iterable[Mapping[str, Any]], find: Find, *, isolation: bool = True
) -> list[Pair]:
    """Matched pairs of RECORDS rows, each once; texts with NUL are dead letters, blank ones gone."""
    found: dict[bytes, Pair] = {}
    for record in records:
        for item in record["texts"]:
            text = cleaned(item["text"])
            name = pair_id(record["image_id"], text)
            if not text or "\0" in text or name in found:
                continue
            key = key_of(text) if isolation else "all"
            entries = tuple(find(key, text))
            if entries:
                found[name] = Pair(name, record["image_id"], text, key, entries)
    return list(found.values())


def count(pairs: Iterable[Pair]) -> Counts:
    """Texts of each entry, by metadata key."""
    counts: Counts = defaultdict(Counter)
    for pair in pairs:
        counts[pair.key].update(pair.entries)
    return counts


def t_to_p(counts: Iterable[int], t: int) -> float:
    """p = sum(c[c < t]) / sum(c)."""
    values = list(counts)
    return sum(c for c in values if c < t) / sum(values)


def p_to_t(counts: Counter[int], size: int, p: float) -> int:
    """The released code over all entries, those without a match included; at least 1."""
    ascending = sorted(counts.get(entry, 0) for entry in range(size))
    total, so_far, best, nearest = sum(ascending), 0, math.inf, 0
    for value in ascending:
        so_far += value
        if abs(so_far / total - p) < best:
            best, nearest = abs(so_far / total - p), value
    return max(1, nearest)


def thresholds(
    counts: Counts,
    sizes: Mapping[str, int],
    *,
    p: float | None = None,
    t_en: int | None = None,
    shared: bool = False,
    reference: str = "en",
) -> tuple[float, dict[str, int]]:
    """p, and t of every language with a match."""
    if p is None:
        assert t_en is not None
        p = t_to_p(counts[reference].values(), t_en)
    english = t_en if t_en is not None else p_to_t(counts[reference], sizes[reference], p)
    return p, {
        key: english if key == reference or shared else p_to_t(counts[key], sizes[key], p)
        for key in counts
    }


def keep(pair: Pair, counts: Counts, t: Mapping[str, int]) -> float:
    """1 - prod(1 - prob[i]) with prob = 1 below t, else t / count."""
    miss = 1.0
    for entry in pair.entries:
        c = counts[pair.key][entry]
        miss *= 1.0 - (1.0 if c < t[pair.key] else t[pair.key] / c)
    return 1.0 - miss


def _number(seed: int, epoch: int, name: bytes, salt: int) -> float:
    return float(uniform(seed, epoch, pa.array([name], ID_TYPE), salt)[0])


def by_image(pairs: Iterable[Pair]) -> dict[bytes, list[Pair]]:
    """The pairs of each image, by ascending pair id."""
    groups: dict[bytes, list[Pair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair.pair):
        groups[pair.image].append(pair)
    return groups


def draw(
    pairs: Sequence[Pair], probability: Mapping[bytes, float], *, seed: int, epoch: int, mode: str
) -> set[bytes]:
    """The pair ids that one draw keeps."""
    asked: Iterator[Pair] = iter(pairs)
    if mode == "image":
        groups = by_image(pairs)
        asked = (
            group[int(_number(seed, epoch, image, SALT_PICK) * len(group))]
            for image, group in groups.items()
        )
    return {
        pair.pair
        for pair in asked
        if _number(seed, epoch, pair.pair, SALT_DRAW) < probability[pair.pair]
    }
