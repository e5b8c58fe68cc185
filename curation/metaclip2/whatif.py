"""What another threshold would give: set size and language mix, with a 95 % interval.

Counts give every language's threshold and probabilities exactly. The size of the kept set also
depends on which entries occur together, so it is estimated from the sample of entry lists.

The interval is for the size of one drawn set. It holds the sampling error of the estimate (with
the finite population correction, so none if the sample is complete) and the variance of the draw.
In mode "image" the sample does not say which texts share an image, and the variances used are
upper bounds; those of single languages are the wider ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.metaclip2.counts import LanguageCounts
from curation.metaclip2.draw import IMAGE_MODE, check_mode
from curation.metaclip2.probabilities import Probabilities, keep_probability
from curation.metaclip2.thresholds import Thresholds, find_thresholds
from schemas.errors import IntegrityError, UsageError

Z95 = 1.959963984540054


@dataclass(frozen=True)
class LanguageEstimate:
    """One language of a set: threshold, matched texts, expected size and share, 95 % intervals.

    ``sampled`` texts of ``texts`` were looked at; if they are all, only the draw is uncertain.
    """

    t: int
    tail: float
    texts: int
    sampled: int
    expected: float
    low: float
    high: float
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class Estimate:
    """A set that one p (or t_en) would give, in texts."""

    p: float
    t_en: int | None
    mode: str
    threshold: str
    texts: int
    expected: float
    low: float
    high: float
    languages: dict[str, LanguageEstimate]
    warnings: list[str]


def estimate(
    counts: Mapping[str, LanguageCounts],
    sizes: Mapping[str, int],
    sample: pa.Table,
    totals: Mapping[str, int],
    *,
    p: Sequence[float] = (),
    t_en: Sequence[int] = (),
    mode: str,
    threshold: str = "language",
    isolation: bool = True,
) -> list[Estimate]:
    """Return one Estimate for each p, then for each t_en.

    ``sample`` is a whole SAMPLE dataset, ``totals`` the matched texts of each metadata key,
    ``sizes`` its number of entries. Raises UsageError for settings that ``find_thresholds``
    refuses, IntegrityError if sample, totals and counts cannot belong together.
    """
    check_mode(mode)
    settings: list[tuple[float | None, int | None]] = [(x, None) for x in p]
    settings += [(None, t) for t in t_en]
    if not settings:
        raise UsageError("give at least one p (such as 0.06) or one t_en")
    _check(counts, sample, totals)
    estimates = []
    for one_p, one_t in settings:
        found = find_thresholds(
            counts, sizes, p=one_p, t_en=one_t, threshold=threshold, isolation=isolation
        )
        estimates.append(_estimate(found, counts, sample, totals, mode))
    return estimates


def to_table(estimates: Sequence[Estimate]) -> pa.Table:
    """Return one row for each estimate and language, and one with language null for the total."""
    rows = []
    for e in estimates:
        head = {"p": e.p, "t_en": e.t_en, "mode": e.mode, "threshold": e.threshold}
        total = {"texts": e.texts, "expected": e.expected, "low": e.low, "high": e.high}
        rows.append({**head, "language": None, **total})
        rows.extend({**head, "language": k, **vars(v)} for k, v in e.languages.items())
    kinds = [("p", pa.float64()), ("t_en", pa.int64()), ("mode", pa.string())]
    kinds += [("threshold", pa.string()), ("language", pa.string())]
    numbers = {"int": pa.int64(), "float": pa.float64()}
    kinds += [(k, numbers[str(t)]) for k, t in LanguageEstimate.__annotations__.items()]
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds))


@dataclass(frozen=True)
class _Part:
    """One language's kept texts: size, variance of its estimate and of the draw, for its shares."""

    size: float
    sampling: float
    drawing: float
    share_drawing: float
    sampled: int


def _estimate(
    found: Thresholds,
    counts: Mapping[str, LanguageCounts],
    sample: pa.Table,
    totals: Mapping[str, int],
    mode: str,
) -> Estimate:
    keep = keep_probability(
        sample["metadata"], sample["entries"], Probabilities.of_counts(counts, found)
    )
    image_mode = mode == IMAGE_MODE
    texts_of_image = sample["image_texts"].to_numpy() if image_mode else np.ones(len(keep), int)
    value, weight = keep / texts_of_image, np.empty(len(keep))
    parts = {}
    for key, rows in _groups(sample):
        parts[key] = _part(value[rows], totals[key], image_mode)
        weight[rows] = totals[key] / len(rows)
    size = math.fsum(part.size for part in parts.values())
    variance = math.fsum(part.sampling for part in parts.values())
    variance += _draw_variance(value, weight, texts_of_image)
    share_variance = math.fsum(part.sampling + part.share_drawing for part in parts.values())
    languages = {}
    for key, part in parts.items():
        own = part.sampling + part.share_drawing
        share = part.size / size if size else 0.0
        around = (1 - share) ** 2 * own + share**2 * (share_variance - own)
        spread = Z95 * math.sqrt(max(around, 0.0)) / size if size else 0.0
        low, high = _interval(part.size, part.sampling + part.drawing, totals[key])
        languages[key] = LanguageEstimate(
            t=found.languages[key].t,
            tail=found.languages[key].tail,
            texts=totals[key],
            sampled=part.sampled,
            expected=part.size,
            low=low,
            high=high,
            share=share,
            share_low=max(0.0, share - spread),
            share_high=min(1.0, share + spread),
        )
    texts = sum(totals[key] for key in parts)
    low, high = _interval(size, variance, texts)
    return Estimate(
        found.p,
        found.t_en,
        mode,
        found.threshold,
        texts,
        size,
        low,
        high,
        languages,
        found.warnings,
    )


def _part(value: npt.NDArray[np.float64], total: int, image_mode: bool) -> _Part:
    n, mean = len(value), float(value.mean())
    spread = float(value.var(ddof=1)) if n > 1 else 0.0
    drawing = total * float((value * (1.0 - value)).mean())
    return _Part(
        size=total * mean,
        sampling=total * (total - n) * spread / n,
        drawing=drawing,
        # Languages that share images draw against each other, which moves shares the more: then
        # the bound is that of counts without the (1 - value).
        share_drawing=total * mean if image_mode else drawing,
        sampled=n,
    )


def _draw_variance(
    value: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], texts: npt.NDArray[np.int_]
) -> float:
    """Return the variance of the draw over all languages, from weighted texts.

    Texts of one image exclude each other. Of two upper bounds the smaller counts, for each number
    of texts an image has: that of texts drawn each for itself (exact for one text), and that of
    images which all have their mean probability.
    """
    variance = 0.0
    for n in np.unique(texts):
        w, v = weight[texts == n], value[texts == n]
        images, size = w.sum() / n, (w * v).sum()
        alike = size * max(0.0, 1.0 - size / images)
        variance += min(float((w * v * (1.0 - v)).sum()), alike)
    return variance


def _interval(size: float, variance: float, most: int) -> tuple[float, float]:
    spread = Z95 * math.sqrt(variance)
    return max(0.0, size - spread), min(float(most), size + spread)


def _groups(sample: pa.Table) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    encoded = sample["metadata"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    for code, key in enumerate(encoded.dictionary.to_pylist()):
        yield key, np.flatnonzero(codes == code)


def _check(
    counts: Mapping[str, LanguageCounts], sample: pa.Table, totals: Mapping[str, int]
) -> None:
    sampled = {key: len(rows) for key, rows in _groups(sample)}
    for key in sorted({k for k, c in counts.items() if c.matches} | set(sampled)):
        n, total = sampled.get(key, 0), totals.get(key, 0)
        if key not in counts or not 0 < n <= total:
            raise IntegrityError(
                f"{key!r} has {n} texts in the sample and {total} matched texts"
                f"{'' if key in counts else ', but no counts'}: sample, counts and totals do not "
                "belong together"
            )
