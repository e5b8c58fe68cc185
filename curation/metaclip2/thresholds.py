"""From one English threshold to a threshold for each language (MetaCLIP 2, section 3.3).

t is a count: entries with fewer matches are the tail and keep all their texts, the others are
heads and keep each text with probability t / count. p is the share of all matches that falls on
the tail. The English t gives p, and p gives each language the t at which its tail holds the same
share. Written on sparse counts: the entries without a match are only a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.metaclip2.counts import LanguageCounts
from curation.metaclip2.match import ALL
from schemas.errors import IntegrityError, UsageError

Counts = npt.NDArray[np.uint64]
ENGLISH = "en"
THRESHOLDS = ("language", "shared")


def t_to_p(counts: Counts, t: int) -> float:
    """Return the share of matches on entries with fewer than ``t`` of them (strictly).

    Raises ValueError if there is no match at all.
    """
    total = int(counts.sum())
    if total == 0:
        raise ValueError("no entry has a match, so no share of matches exists")
    return int(counts[counts < t].sum()) / total


def tail_before(before: LanguageCounts, after: LanguageCounts, t: int) -> float:
    """Return the share of the matches before a loss that fell on what is the tail after it.

    The tail after it are the entries with fewer than ``t`` matches, those without any included;
    where nothing but chance decides what is lost, ``t_to_p(after.counts, t)`` is about the same.
    Raises ValueError if there was no match at all.
    """
    if before.matches == 0:
        raise ValueError("no entry had a match, so no share of matches exists")
    heads = after.entries[after.counts >= t]
    in_tail = ~np.isin(before.entries, heads)
    return int(before.counts[in_tail].sum()) / before.matches


def p_to_t(counts: Counts, size: int, p: float) -> int:
    """Return the threshold whose cumulative share of matches is nearest to ``p``, at least 1.

    ``counts`` may leave out entries without a match; ``size`` is the number of all entries, and
    the missing ones stand first in the ascending order, at a cumulative share of 0. On a tie the
    smaller threshold wins. Raises ValueError if there is no match at all.
    """
    ascending = np.sort(counts[counts > 0])
    if len(ascending) == 0:
        raise ValueError("no entry has a match, so no threshold exists")
    distance = np.abs(np.cumsum(ascending) / ascending.sum() - p)
    nearest = int(np.argmin(distance))
    if size > len(ascending) and abs(p) <= distance[nearest]:
        return 1  # an entry without a match is nearest: 0, raised to the least useful threshold
    return int(ascending[nearest])


def entry_probability(counts: Counts, t: int) -> npt.NDArray[np.float64]:
    """Return float64[n]: 1 for counts below ``t``, else t / count (so exactly 1 at t)."""
    positive = np.maximum(counts, np.uint64(1))
    return np.where(counts < t, 1.0, t / positive)


@dataclass(frozen=True)
class LanguageThreshold:
    """One language: entries of its metadata, entries hit, matches, t, tail mass and count step."""

    entries: int
    hit: int
    matches: int
    t: int
    tail: float
    step: float

    def to_stats(self, p: float) -> dict[str, Any]:
        """Return the fields as a manifest's statistics hold them, with ``gap`` = tail - p."""
        return {**vars(self), "gap": self.tail - p}


@dataclass(frozen=True)
class Thresholds:
    """p, the reference threshold, and every language with a match."""

    p: float
    t_en: int | None
    threshold: str
    languages: dict[str, LanguageThreshold]
    warnings: list[str] = field(default_factory=list)

    def to_stats(self) -> dict[str, Any]:
        """Return the statistics of a balance dataset."""
        return {
            "p": self.p,
            "t_en": self.t_en,
            "threshold": self.threshold,
            "languages": {k: v.to_stats(self.p) for k, v in self.languages.items()},
        }


def find_thresholds(
    counts: Mapping[str, LanguageCounts],
    sizes: Mapping[str, int],
    *,
    p: float | None = None,
    t_en: int | None = None,
    threshold: str = "language",
    isolation: bool = True,
) -> Thresholds:
    """Return each language's threshold from either p or the English threshold t_en.

    ``sizes`` gives the number of metadata entries of each key. t_en is used for English as given
    (the released code; algorithm 1 would recompute it). ``threshold="shared"`` gives every
    language the English one (the paper's ablation). Without ``isolation`` the one list "all"
    takes the place of English. Languages without any match are skipped with a warning.

    Raises UsageError if not exactly one of p and t_en is given, out of range, or if English is
    needed and has no match; IntegrityError if counts and sizes cannot belong together.
    """
    _check_arguments(p, t_en, threshold)
    _check_sizes(counts, sizes)
    reference = ENGLISH if isolation else ALL
    live = {key: c for key, c in sorted(counts.items()) if c.matches}
    if reference not in live and (t_en is not None or threshold == "shared"):
        raise UsageError(
            f"{f't_en={t_en}' if t_en is not None else 'threshold=shared'} needs matched texts of "
            f"{reference!r}, and there are none: give p instead (such as p=0.06) with "
            "threshold=language"
        )
    if t_en is not None:
        p, reference_t = t_to_p(live[reference].counts, t_en), t_en
    elif reference in live:
        assert p is not None
        reference_t = p_to_t(live[reference].counts, sizes[reference], p)
    else:
        reference_t = None
    assert p is not None
    found = {}
    for key, c in live.items():
        own = reference_t if key == reference or threshold == "shared" else None
        t = own if own is not None else p_to_t(c.counts, sizes[key], p)
        found[key] = _describe(c, sizes[key], t)
    result = Thresholds(p, reference_t, threshold, found)
    result.warnings.extend(_warnings(result, reference, t_en, sorted(set(sizes) - set(live))))
    return result


def _describe(c: LanguageCounts, size: int, t: int) -> LanguageThreshold:
    step = int(c.counts[c.counts == t].sum()) / c.matches
    return LanguageThreshold(size, len(c.entries), c.matches, t, t_to_p(c.counts, t), step)


def _check_arguments(p: float | None, t_en: int | None, threshold: str) -> None:
    if (p is None) == (t_en is None):
        raise UsageError(
            f"give exactly one of p and t_en (found p={p}, t_en={t_en}): p is the share of matches "
            "on tail entries (the paper's is 0.06), t_en the count at which an English entry "
            "becomes a head (the paper's is 170000 for 10.7 billion English pairs)"
        )
    if p is not None and not (0 <= p <= 1 and math.isfinite(p)):
        raise UsageError(f"p={p} is a share of all matches: give a number from 0 to 1")
    if t_en is not None and (t_en < 1 or t_en != int(t_en)):
        raise UsageError(f"t_en={t_en} is a count of texts: give a whole number of at least 1")
    if threshold not in THRESHOLDS:
        raise UsageError(f"threshold={threshold} is unknown: give {' or '.join(THRESHOLDS)}")


def _check_sizes(counts: Mapping[str, LanguageCounts], sizes: Mapping[str, int]) -> None:
    for key, c in counts.items():
        last = int(c.entries[-1]) if len(c.entries) else -1
        if last >= sizes.get(key, 0):
            raise IntegrityError(
                f"the counts name entry {last} of {key!r}, but its metadata has "
                f"{sizes.get(key, 0)} entries: counts and metadata do not belong together"
            )


def _warnings(found: Thresholds, reference: str, t_en: int | None, skipped: list[str]) -> list[str]:
    warnings = []
    if found.p == 1:
        why = f" (t_en={t_en} is above every count of {reference!r})" if t_en is not None else ""
        warnings.append(f"p = 1{why}: every match counts as tail, so nothing is thinned anywhere.")
    for key, language in found.languages.items():
        if language.t == 1:
            warnings.append(_warn_t1(key, language, found.p))
    if skipped:
        warnings.append(
            f"No text matched any entry of {', '.join(skipped)}: skipped, no row of "
            f"{'it' if len(skipped) == 1 else 'them'} can be kept."
        )
    return warnings


def _warn_t1(key: str, language: LanguageThreshold, p: float) -> str:
    if p == 0:
        why = "p = 0 leaves no tail"
    elif language.step > 0:
        why = (
            f"too few texts for so many entries: those matched once hold {language.step:.1%} of "
            f"the matches, but the tail must have fewer than t, so it holds none instead of {p:.1%}"
        )
    else:
        why = f"its least matched entries hold so much that no tail is nearest to {p:.1%}"
    return (
        f"{key}: t = 1, the least possible, with {language.matches:,} matches on "
        f"{language.entries:,} entries ({language.matches / language.entries:.2f} an entry, "
        f"{language.hit:,} hit): {why}. Each entry is thinned to as little as one text. Take more "
        "texts, fewer entries or a larger p."
    )
