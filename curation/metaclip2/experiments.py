"""Two small experiments that show what the thresholds do, in seconds on one core.

``run_synthetic``: four languages of unequal size. One shared threshold thins the small languages
less than the large one; a threshold from p for each language brings the tail of each to the same
share of its matches, and the English share of the kept set rises (MetaCLIP 2, section 3.3).

``run_captions``: real captions of one language against its dictionary, for several p. Few texts
on many entries drive t to 1: there the threshold has nothing to work on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curation.metaclip2.counts import LanguageCounts, by_language, count
from curation.metaclip2.draw import TEXT_MODE, draw, with_probability
from curation.metaclip2.probabilities import Probabilities, keep_probability
from curation.metaclip2.thresholds import Thresholds, find_thresholds, p_to_t
from schemas.errors import InputError
from schemas.ids import ID_TYPE
from schemas.table_schemas import ENTRIES, MATCHES

LANGUAGES = (("en", 300_000, 3000), ("es", 60_000, 2000), ("vi", 12_000, 800), ("sw", 3000, 300))
"""(metadata key, texts, entries) of the synthetic pool, from the largest to the smallest."""

P = 0.06
GAP = 0.01
CAPTION_PS = (0.01, 0.03, 0.06, 0.10)
MOST_MATCHES = 6

GENERATOR = (
    "Text number i of a language has 1 + i mod 6 matches (3.5 on average), each an entry of rank r "
    "with probability proportional to 1/r (Zipf's law); an entry counts once a text. The matches "
    "of a language are drawn systematically: one uniform number shifts a grid of equal steps over "
    "the cumulated shares, and a permutation deals the grid's points to the texts. So each entry "
    "is drawn as often as its share says, up to one, and the seed decides which entries meet in a "
    "text. (With independent draws the smallest language's counts vary by more than a count "
    "step, which is 2 % of its matches.)"
)


def synthetic_matches(seed: int) -> pa.Table:
    """Return MATCHES of the synthetic pool; every text is an image of its own."""
    rng = np.random.default_rng(seed)
    tables = [_language(rng, *language) for language in LANGUAGES]
    return pa.concat_tables(tables)


def run_synthetic(seed: int) -> pa.Table:
    """Return one row a language: threshold, tail, keep rate and share, shared t and t from p.

    Kept texts are drawn by (seed, epoch 0), not only expected. ``gap`` is tail - p, ``step`` the
    share of the matches on entries with exactly t of them: the tail cannot be set more finely.
    """
    matches = synthetic_matches(seed)
    counts = by_language(count(matches))
    sizes = {key: entries for key, _, entries in LANGUAGES}
    english = counts["en"].counts
    t_en = p_to_t(english, sizes["en"], P)
    shared = find_thresholds(counts, sizes, t_en=t_en, threshold="shared")
    own = find_thresholds(counts, sizes, t_en=t_en)
    kept_shared = _draw(matches, counts, shared, seed)
    kept = _draw(matches, counts, own, seed)
    sum_shared, sum_own = (sum(n for n, _ in kept.values()) for kept in (kept_shared, kept))
    rows = [
        {
            "seed": seed,
            "language": key,
            "texts": texts,
            "entries": entries,
            "matches_per_text": counts[key].matches / texts,
            "p": own.p,
            "t_shared": shared.languages[key].t,
            "tail_shared": shared.languages[key].tail,
            "keep_shared": kept_shared[key][0] / texts,
            "share_shared": kept_shared[key][0] / sum_shared,
            "t": own.languages[key].t,
            "tail": own.languages[key].tail,
            "gap": own.languages[key].tail - own.p,
            "step": own.languages[key].step,
            "keep": kept[key][0] / texts,
            "share": kept[key][0] / sum_own,
            "top_entry_raw": int(counts[key].counts.max()) / counts[key].matches,
            "top_entry_kept": kept[key][1],
        }
        for key, texts, entries in LANGUAGES
    ]
    return pa.Table.from_pylist(rows)


def synthetic_faults(table: pa.Table) -> list[str]:
    """Return what one seed's table does not show of what it should, empty if it shows all."""
    rows = table.to_pylist()
    seed = rows[0]["seed"]
    faults = []
    tails = [row["tail_shared"] for row in rows]
    if not all(a < b for a, b in pairwise(tails)):
        order = " < ".join(row["language"] for row in rows)
        shown = ", ".join(f"{tail:.3f}" for tail in tails)
        faults.append(f"seed {seed}: with a shared t the tail should rise {order}; it is {shown}")
    for row in rows:
        if abs(row["gap"]) > GAP:
            faults.append(
                f"seed {seed}: the tail of {row['language']} is {row['tail']:.4f}, more than {GAP} "
                f"from p = {row['p']:.4f}"
            )
    if rows[0]["share"] <= rows[0]["share_shared"]:
        faults.append(
            f"seed {seed}: the English share should rise with t from p; it goes from "
            f"{rows[0]['share_shared']:.3f} to {rows[0]['share']:.3f}"
        )
    return faults


@dataclass(frozen=True)
class Captions:
    """Captions of one language against its entries, and what each p would keep of them."""

    language: str
    texts: int
    entries: int
    microseconds_per_text: float
    matches_per_text: float
    unmatched: float
    entries_hit: int
    top_entries: list[str]
    thresholds: list[dict[str, Any]]
    warnings: list[str]


def read_captions(path: Path, language: str) -> list[str]:
    """Return the captions of one language, in file order.

    ``path`` is a JSON Lines file whose ``captions`` is an object {language: caption}, or a Parquet
    file in which that object is a JSON string. Raises InputError.
    """
    try:
        if path.suffix == ".parquet":
            column = pq.read_table(path, columns=["captions"])["captions"].to_pylist()
            objects = [json.loads(text) for text in column]
        else:
            objects = [json.loads(line)["captions"] for line in path.read_text().splitlines()]
        found = [captions[language] for captions in objects if language in captions]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no captions by language could be read ({type(error).__name__}: {error}); "
            'each row needs captions such as {"fr": "Une grenouille."}'
        ) from None
    if not found:
        raise InputError(f"{path}: no caption in language {language!r}; give another --language")
    return found


def run_captions(
    captions: Sequence[str],
    entries: Sequence[str],
    language: str,
    ps: Sequence[float] = CAPTION_PS,
) -> Captions:
    """Match captions against entries (mode repaired); return t and keep rate for each p."""
    texts = pa.array(captions, pa.string())
    offsets, ids, seconds = _match(texts, entries)
    lengths = np.diff(offsets)
    hits = np.bincount(ids, minlength=len(entries)).astype(np.uint64)
    hit = np.flatnonzero(hits)
    counts = {language: LanguageCounts(hit.astype(np.uint32), hits[hit])}
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(ids), ENTRIES)
    lists = lists.filter(pa.array(lengths > 0))
    keys = pa.array([language]).take(pa.array(np.zeros(len(lists), np.int64)))
    rows: list[dict[str, Any]] = []
    warnings: dict[str, str] = {}
    for p in ps:
        found = find_thresholds(counts, {language: len(entries)}, p=p)
        keep = keep_probability(keys, lists, Probabilities.of_counts(counts, found))
        one = found.languages[language]
        rows.append({"p": p, "t": one.t, "tail": one.tail, "keep": float(keep.mean())})
        for warning in found.warnings:
            warnings.setdefault(warning.partition(":")[0], warning)
    top = sorted(hit.tolist(), key=lambda e: (-int(hits[e]), entries[e]))[:5]
    return Captions(
        language=language,
        texts=len(captions),
        entries=len(entries),
        microseconds_per_text=seconds / len(captions) * 1e6,
        matches_per_text=len(ids) / len(captions),
        unmatched=float((lengths == 0).mean()),
        entries_hit=len(hit),
        top_entries=[entries[e] for e in top],
        thresholds=rows,
        warnings=list(warnings.values()),
    )


def _match(
    texts: pa.Array, entries: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], float]:
    """Match with the compiled kernel; the seconds are those of a second, warm call."""
    from kernels.matching import Automaton, build

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "automaton")
        build(list(entries), mode="repaired", path=path)
        automaton = Automaton.open(path)
        automaton.match(texts.slice(0, 1))
        start = time.perf_counter()
        offsets, ids = automaton.match(texts)
        return offsets, ids, time.perf_counter() - start


def _language(rng: np.random.Generator, key: str, texts: int, entries: int) -> pa.Table:
    per_text = 1 + np.arange(texts) % MOST_MATCHES
    draws = int(per_text.sum())
    cumulated = np.cumsum(1.0 / np.arange(1, entries + 1))
    grid = (np.arange(draws) + rng.random()) / draws
    entry = np.searchsorted(cumulated, rng.permutation(grid) * cumulated[-1])
    cells = np.unique(np.repeat(np.arange(texts), per_text) * entries + entry)
    owner, entry = cells // entries, (cells % entries).astype(np.uint32)
    offsets = np.searchsorted(owner, np.arange(texts + 1)).astype(np.int32)
    ids = pa.FixedSizeBinaryArray.from_buffers(
        ID_TYPE, texts, [None, pa.py_buffer(rng.bytes(16 * texts))]
    )
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(entry), type=ENTRIES)
    constant = {"key": "", "text": "", "source": 0, "shard": 0, "language": key, "metadata": key}
    columns: dict[str, Any] = {
        "pair_id": ids,
        "image_id": ids,
        "row": pa.array(np.arange(texts)),
        "entries": lists,
        **{name: pa.repeat(value, texts) for name, value in constant.items()},
    }
    return MATCHES.validate(pa.table(columns))


def _draw(
    matches: pa.Table, counts: dict[str, LanguageCounts], thresholds: Thresholds, seed: int
) -> dict[str, tuple[int, float]]:
    """Return, of what is kept in each language, the texts and the top entry's share of matches."""
    probabilities = Probabilities.of_counts(counts, thresholds)
    matched = with_probability(matches, probabilities, mode=TEXT_MODE).table
    curated = draw(matched, seed, 0, TEXT_MODE)
    kept = by_language(count(curated.table))
    return {
        key: (found["texts"], int(kept[key].counts.max()) / kept[key].matches)
        for key, found in curated.stats["languages"].items()
    }
