"""Class labels of the generated pool: what a trained model is asked about its test part."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from curation.pool import scene
from curation.pool import stamps as stamp_files
from curation.pool.config import PoolConfig
from curation.pool.generate import generate
from curation.pool.stamps import StampSet
from schemas.errors import InputError

_CHUNK = 100_000


@dataclass(frozen=True)
class Concept:
    """A class: its number, English name, stamps, and its names by language (first stamp that has
    one).
    """

    number: int
    name: str
    stamps: tuple[str, ...]
    names: dict[str, str]


def concepts(stamps: StampSet | None = None) -> tuple[Concept, ...]:
    """All classes, in ascending order of English name."""
    chosen = stamps or stamp_files.load()
    found: list[Concept] = []
    for number, name in enumerate(chosen.concepts):
        members = [stamp for stamp in chosen.stamps if stamp.concept == name]
        names: dict[str, str] = {}
        for stamp in members:
            names = {**stamp.names, **names}
        found.append(Concept(number, name, tuple(stamp.id for stamp in members), names))
    return tuple(found)


def label_of(url: str | None, stamps: StampSet | None = None) -> int:
    """Number of the concept that a pool URL shows. Raises InputError for another URL."""
    chosen = stamps or stamp_files.load()
    stamp = scene.parse(url).stamp
    if stamp not in chosen.index:
        raise InputError(f"{url}: no stamp {stamp!r} in {chosen.folder}")
    return int(chosen.concept_of[chosen.index[stamp]])


def held_out_urls(seed: int, records: int, config: PoolConfig | None = None) -> pa.Array:
    """URLs of the test part among records 0 to `records - 1`: ascending by number, each once.

    A pool with these as its evaluation set has no test image left.
    """
    base = config or PoolConfig()
    wanted = replace(base, split="test")
    parts = [
        generate(seed, start, min(_CHUNK, records - start), wanted)["url"].combine_chunks()
        for start in range(0, records, _CHUNK)
    ]
    urls = {url for part in parts for url in part.to_pylist()}
    return pa.array(sorted(urls, key=lambda url: scene.parse(url).number), pa.string())
