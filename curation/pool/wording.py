"""Texts by the million: templates as arrays of pieces and slots, filled without a loop."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.pool.phrases import FILE_NAMES, PHRASES, Phrases
from curation.pool.phrases_more import MORE_PHRASES
from curation.pool.stamps import StampSet

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KINDS = ("caption", "name", "describe", "shop", "generic", "file", "broken", "test")
SHARES = {"caption": 0.33, "name": 0.07, "describe": 0.27}
"""Kinds of the texts that say what the picture shows, with their weights."""
NOISE_SHARES = {"shop": 0.12, "generic": 0.10, "file": 0.10, "broken": 0.01}
"""Kinds of noise; the configuration's `noise` scales these weights."""

LONG_TEXT = "Buy now! Free shipping! " * 5_000  # 120 kB: a whole page in an alt attribute
_BROKEN = [""] * 10 + [" \t "] * 6 + ["{c}\x00"] * 3 + [LONG_TEXT]
_SLOTS = "cnbkyps"
_YEARS, _NUMBERS, _PRICES = range(1996, 2025), range(10_000), range(1, 100)
_MAX_SLOTS = 3


class Wording:
    """All templates of all languages over one stamp set."""

    def __init__(self, stamps: StampSet, languages: Sequence[str]) -> None:
        self.languages = tuple(languages)
        self._stamps = len(stamps.stamps)
        phrases = {**PHRASES, **MORE_PHRASES}
        pieces: list[list[str]] = []
        slots: list[list[int]] = []
        first = np.zeros((len(KINDS), len(languages)), np.int64)
        number = np.zeros_like(first)
        for column, language in enumerate(languages):
            one = phrases[language]
            groups = {
                "caption": ["{c}"],
                "name": ["{n}"],
                "describe": one.describe,
                "shop": one.shop,
                "generic": one.generic,
                "file": FILE_NAMES,
                "broken": _BROKEN,
                "test": one.test,
            }
            for row, kind in enumerate(KINDS):
                first[row, column], number[row, column] = len(pieces), len(groups[kind])
                for template in groups[kind]:
                    fixed, holes = _split(template)
                    pieces.append(fixed)
                    slots.append(holes)
        self._first, self._number = first, number
        self._pieces = [pa.array([p[i] for p in pieces]) for i in range(_MAX_SLOTS + 1)]
        self._slots = np.array(slots, np.int64)
        self._colours = len(phrases[self.languages[0]].colours)
        self._fill_vocabulary(stamps, phrases)

    def _fill_vocabulary(self, stamps: StampSet, phrases: Mapping[str, Phrases]) -> None:
        groups: dict[str, list[str]] = {key: [] for key in _SLOTS}
        for language in self.languages:
            # A stamp without a caption in a small language falls back to English.
            groups["c"] += [s.captions.get(language, s.captions["en"]) for s in stamps.stamps]
            groups["n"] += [s.names.get(language, s.names["en"]) for s in stamps.stamps]
            one = phrases[language]
            groups["b"] += [one.background.format(colour) for colour in one.colours]
        groups["k"] = [f"{n:04d}" for n in _NUMBERS]
        groups["y"] = [str(n) for n in _YEARS]
        groups["p"] = [str(n) for n in _PRICES]
        groups["s"] = [stamp.id.rsplit("/", 1)[-1] for stamp in stamps.stamps]
        words = [""]
        self._base = {}
        for key in _SLOTS:
            self._base[key] = len(words)
            words += groups[key]
        self._words = pa.array(words)

    def choose(self, kind: Ints, language: Ints, u: Floats) -> Ints:
        """Template numbers for kinds and languages (indices), equally likely: int64[n]."""
        return self._first[kind, language] + (u * self._number[kind, language]).astype(np.int64)

    def write(
        self, template: Ints, language: Ints, stamp: Ints, colour: Ints, us: Sequence[Floats]
    ) -> pa.Array:
        """The texts: string[n]. `us` holds three uniform arrays for numbers, years and prices."""
        columns: list[pa.Array | str] = []
        values = {
            "c": self._base["c"] + language * self._stamps + stamp,
            "n": self._base["n"] + language * self._stamps + stamp,
            "b": self._base["b"] + language * self._colours + colour,
            "k": self._base["k"] + (us[0] * len(_NUMBERS)).astype(np.int64),
            "y": self._base["y"] + (us[1] * len(_YEARS)).astype(np.int64),
            "p": self._base["p"] + (us[2] * len(_PRICES)).astype(np.int64),
            "s": self._base["s"] + stamp,
        }
        table = np.stack([np.zeros_like(stamp), *(values[key] for key in _SLOTS)])
        rows = np.arange(len(template))
        for i in range(_MAX_SLOTS + 1):
            columns.append(take(self._pieces[i], template))
            if i < _MAX_SLOTS:
                columns.append(take(self._words, table[self._slots[template, i], rows]))
        return join(*columns, separator="")


def take(values: pa.Array, rows: Ints) -> pa.Array:
    """The values at the rows."""
    indices: Any = pa.array(rows)
    return values.take(indices)


def join(*columns: pa.Array | str, separator: str) -> pa.Array:
    """Strings put together row by row; a plain string stands for every row."""
    parts: list[Any] = [*columns, separator]
    return pc.binary_join_element_wise(*parts)


def kind_shares(noise: float) -> Floats:
    """Probability of each of `KINDS` in the train part: float64[len(KINDS)]."""
    weights = [SHARES.get(k, NOISE_SHARES.get(k, 0.0) * noise) for k in KINDS]
    return np.array(weights) / sum(weights)


def _split(template: str) -> tuple[list[str], list[int]]:
    """Fixed pieces (one more than slots, padded) and slot kinds (0: none) of a template."""
    parts = re.split(r"\{([a-z])\}", template)
    fixed, holes = parts[0::2], [1 + _SLOTS.index(key) for key in parts[1::2]]
    if len(holes) > _MAX_SLOTS:
        raise ValueError(f"{template!r} has more than {_MAX_SLOTS} slots")
    padding = _MAX_SLOTS - len(holes)
    return fixed + [""] * padding, holes + [0] * padding
