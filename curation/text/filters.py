"""Quality rules on documents: each a number of the text, its bound, and the reason it gives.

Words are what white space separates; lines and paragraphs (between blank lines) are stripped, and
empty ones do not count. A value equal to its bound passes; an empty share is 0.

``gopher``: the quality and repetition rules of MassiveText (Rae et al. 2021, arXiv 2112.11446,
section A1.1 and Table A1). ``fineweb``: the line rules of FineWeb (Penedo et al. 2024, arXiv
2406.17557, section 3.5), the successors of C4's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
BULLETS = ("•", "‣", "●", "-", "*")
ELLIPSES = ("...", "…")
SENTENCE_ENDS = (".", "!", "?", '"', "'", "”", "’", "。", "！", "？")
SHORT_LINE = 30
"""Characters of what FineWeb calls a short line, at most."""

TOP = (2, 3, 4)
REPEATED = (5, 6, 7, 8, 9, 10)

GOPHER: dict[str, float] = {
    "min_words": 50,
    "max_words": 100_000,
    "min_mean_word_length": 3,
    "max_mean_word_length": 10,
    "max_symbol_ratio": 0.1,
    "max_bullet_lines": 0.9,
    "max_ellipsis_lines": 0.3,
    "min_alphabetic_words": 0.8,
    "min_stop_words": 2,
    "max_duplicate_lines": 0.30,
    "max_duplicate_paragraphs": 0.30,
    "max_duplicate_line_characters": 0.20,
    "max_duplicate_paragraph_characters": 0.20,
    **{f"max_top_{n}_gram": bound for n, bound in zip(TOP, (0.20, 0.18, 0.16), strict=True)},
    **{
        f"max_duplicate_{n}_grams": bound
        for n, bound in zip(REPEATED, (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True)
    },
}
FINEWEB: dict[str, float] = {
    "min_punctuated_lines": 0.12,
    "max_short_lines": 0.67,
    "max_line_ends": 0.3,
    "max_duplicate_line_characters": 0.1,
}
PRESETS: dict[str, dict[str, float]] = {"gopher": GOPHER, "fineweb": FINEWEB}

_PARAGRAPHS = re.compile(r"\n\s*\n")


class Measured:
    """The numbers of one text that rules look at; each is computed when first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, stripped."""
        return [line for raw in self.text.split("\n") if (line := raw.strip())]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Paragraphs that are not blank, stripped."""
        return [part for raw in _PARAGRAPHS.split(self.text) if (part := raw.strip())]

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each word: int64[words]."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    @cached_property
    def _codes(self) -> npt.NDArray[np.uint64]:
        """A random-looking number for each distinct word."""
        known: dict[str, int] = {}
        numbers = [known.setdefault(word, len(known) + 1) for word in self.words]
        x = np.array(numbers, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        return x ^ (x >> np.uint64(27))

    def ngrams(self, n: int) -> npt.NDArray[np.uint64]:
        """A hash of the n-gram that begins at each word."""
        count = max(0, len(self.words) - n + 1)
        found = np.zeros(count, np.uint64)
        for j in range(n):
            found = found * np.uint64(0x100000001B3) + self._codes[j : j + count]
            found ^= found >> np.uint64(29)
        return found

    def share(self, count: int | float, of: int | float) -> float:
        """A share; 0 of nothing."""
        return count / of if of else 0.0

    def lines_share(self, test: Callable[[str], bool]) -> float:
        """Share of the lines that pass a test."""
        return self.share(sum(map(test, self.lines)), len(self.lines))

    def top_ngram(self, n: int) -> float:
        """Characters in the most frequent n-gram that repeats (of equals the longest), times its
        count, as a share of the characters of all words."""
        grams = self.ngrams(n)
        if not len(grams):
            return 0.0
        _, first, counts = np.unique(grams, return_index=True, return_counts=True)
        most = counts.max()
        if most < 2:
            return 0.0
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        at = first[counts == most]
        return self.share(int((ends[at + n] - ends[at]).max() * most), int(ends[-1]))

    def repeated_ngrams(self, n: int) -> float:
        """Share of the words' characters in n-grams that occurred before, each counted once."""
        grams = self.ngrams(n)
        if not len(grams):
            return 0.0
        _, first = np.unique(grams, return_index=True)
        later = np.ones(len(grams), bool)
        later[first] = False
        edges = np.zeros(len(self.words) + 1, np.int64)
        at = np.flatnonzero(later)
        edges[at] += 1
        np.subtract.at(edges, at + n, 1)
        covered = np.cumsum(edges[:-1]) > 0
        return self.share(int(self.lengths[covered].sum()), int(self.lengths.sum()))


def repeats(parts: Sequence[str]) -> tuple[float, float]:
    """Shares of parts, and of their characters, that are repetitions of an earlier part."""
    again = [(count - 1, len(part)) for part, count in Counter(parts).items()]
    characters = sum(map(len, parts))
    return (
        sum(count for count, _ in again) / len(parts) if parts else 0.0,
        sum(count * length for count, length in again) / characters if characters else 0.0,
    )


MEASURES: dict[str, Callable[[Measured], float]] = {
    "words": lambda m: len(m.words),
    "mean_word_length": lambda m: m.share(int(m.lengths.sum()), len(m.words)),
    "symbol_ratio": lambda m: max(
        m.share(m.text.count("#"), len(m.words)),
        m.share(sum(map(m.text.count, ELLIPSES)), len(m.words)),
    ),
    "bullet_lines": lambda m: m.lines_share(lambda line: line.startswith(BULLETS)),
    "ellipsis_lines": lambda m: m.lines_share(lambda line: line.endswith(ELLIPSES)),
    "alphabetic_words": lambda m: m.share(
        sum(any(map(str.isalpha, word)) for word in m.words), len(m.words)
    ),
    "stop_words": lambda m: len(STOP_WORDS.intersection(map(str.lower, m.words))),
    "punctuated_lines": lambda m: m.lines_share(lambda line: line.endswith(SENTENCE_ENDS)),
    "short_lines": lambda m: m.lines_share(lambda line: len(line) <= SHORT_LINE),
    "line_ends": lambda m: m.share(m.text.count("\n"), len(m.words)),
    "duplicate_lines": lambda m: repeats(m.lines)[0],
    "duplicate_line_characters": lambda m: repeats(m.lines)[1],
    "duplicate_paragraphs": lambda m: repeats(m.paragraphs)[0],
    "duplicate_paragraph_characters": lambda m: repeats(m.paragraphs)[1],
    **{f"top_{n}_gram": partial(Measured.top_ngram, n=n) for n in TOP},
    **{f"duplicate_{n}_grams": partial(Measured.repeated_ngrams, n=n) for n in REPEATED},
}
"""What rules bound: ``min_NAME`` from below, ``max_NAME`` from above; cheap ones first."""


def reason_of(rule: str) -> str:
    """The reason that a rule rejects with; rules that differ in n alone share one."""
    if rule.startswith("max_top_"):
        return "max_top_ngram"
    return "max_duplicate_ngrams" if rule.endswith("_grams") else rule


def verdict(text: str, rules: Mapping[str, float]) -> str | None:
    """The reason of the first rule, in the order of :data:`MEASURES`, that a text fails; or None."""
    measured = Measured(text)
    for name, measure in MEASURES.items():
        low, high = rules.get(f"min_{name}"), rules.get(f"max_{name}")
        if low is None and high is None:
            continue
        value = measure(measured)
        if low is not None and value < low:
            return reason_of(f"min_{name}")
        if high is not None and value > high:
            return reason_of(f"max_{name}")
    return None
