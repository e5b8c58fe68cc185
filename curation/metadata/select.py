"""Which strings of one Wikipedia become entries (Meta CLIP 2, spec sections 3.1 and 3.2).

Sources in order of precedence: numbers, WordNet, unigrams, bigrams, titles. A cap counts only
strings that no earlier source has. Within a source the order is (-score, string).

Two steps, so that the sources may be cut into pieces: `candidates` of any pieces, combined by
`best`, hold all that `select` can take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from curation.metadata.strings import MAX_ENTRY_CHARACTERS, NUMBERS, entry_mask, strip
from curation.metadata.wikis import UNSPACED

CANDIDATES = pa.schema([("text", pa.string()), ("score", pa.float64())])
"""Distinct texts with their rank: count (u), association (b) or views (t)."""
SELECTED = pa.schema([("text", pa.string()), ("source", pa.string())])
"""What `select` returns: distinct texts in order of precedence, source "", w, u, b or t."""


@dataclass(frozen=True)
class Rules:
    """Thresholds and caps of one Wikipedia. None means no limit.

    A fraction is of the distinct unigrams (u), of the *kept* unigrams (b; the published English
    sizes have just this ratio) and of the distinct titles (t).
    """

    unigram_count: int = 1
    unigram_cap: int | None = 251_465
    unigram_fraction: float | None = 0.10
    bigram_pmi: float | None = None
    bigram_cap: int | None = 100_646
    bigram_fraction: float | None = 0.40
    title_views: int = 1
    title_cap: int | None = 61_235
    title_fraction: float | None = 0.76
    total: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's record."""
        return asdict(self)


OTHERS = Rules()
"""Every Wikipedia but the English one (section 3.2; bigrams by the documented rule)."""
ENGLISH = Rules(
    unigram_count=100,
    unigram_cap=None,
    unigram_fraction=None,
    bigram_pmi=30.0,
    bigram_cap=None,
    bigram_fraction=None,
    title_views=70,
    title_cap=None,
    title_fraction=None,
    total=500_000,
)
"""English: Meta CLIP 1's thresholds, ended at 500,000 entries (section 3.1)."""


def rules_of(wiki: str) -> Rules:
    """The published rules of a Wikipedia."""
    return ENGLISH if wiki == "en" else OTHERS


@dataclass(frozen=True)
class Totals:
    """Sizes of one Wikipedia's sources before any filter: what caps and PMI are taken from.

    `tokens` is the number of unigram tokens N of PMI; the others count distinct strings.
    """

    tokens: int = 0
    unigrams: int = 0
    titles: int = 0


def _smaller(cap: int | None, share: float | None, of: int) -> int | None:
    limits = [
        limit for limit in (cap, None if share is None else int(of * share)) if limit is not None
    ]
    return min(limits) if limits else None


def candidates(kind: str, wiki: str, rows: pa.Table, rules: Rules, totals: Totals) -> pa.Table:
    """Rows (text, count, score) of one kind ("u", "b", "t") that may become entries: CANDIDATES.

    Strips, joins the bigrams of unspaced languages, applies the common filters and the thresholds.
    """
    text = rows["text"].combine_chunks()
    score = pc.cast(rows["score" if kind == "b" else "count"].combine_chunks(), pa.float64())
    if kind == "b" and wiki in UNSPACED:
        text = pc.replace_substring(text, " ", "")
    text = strip(text)
    least = {
        "u": float(rules.unigram_count),
        "t": float(rules.title_views),
        # The logarithm is of the same order: PMI >= x is association * N >= 2**x.
        "b": 0.0 if rules.bigram_pmi is None else 2.0**rules.bigram_pmi / max(totals.tokens, 1),
    }[kind]
    keep = pc.and_(entry_mask(text, limit=MAX_ENTRY_CHARACTERS), pc.greater_equal(score, least))
    return pa.table({"text": text.filter(keep), "score": score.filter(keep)}, schema=CANDIDATES)


def best(tables: Sequence[pa.Table], limit: int | None = None) -> pa.Table:
    """The `limit` best distinct candidates of several tables, in order (-score, text).

    A text that comes more than once keeps its best score. Exact for pieces that were cut by `best`
    with the same limit before.
    """
    frame = pl.concat([pl.DataFrame(table) for table in tables])
    ranked = frame.group_by("text").agg(pl.col("score").max())
    ranked = ranked.sort(["score", "text"], descending=[True, False])
    ranked = ranked if limit is None else ranked.head(limit)
    return ranked.to_arrow().cast(CANDIDATES)


def needed(kind: str, rules: Rules, totals: Totals, lemmas: int) -> int | None:
    """How many best candidates of a kind `select` can ever look at; None if all.

    The walk ends when its cap of new strings is full, and it can pass at most as many known ones as
    the earlier sources hold.
    """
    known = len(NUMBERS) + lemmas
    unigrams = _smaller(rules.unigram_cap, rules.unigram_fraction, totals.unigrams)
    bigrams = _smaller(rules.bigram_cap, rules.bigram_fraction, unigrams or 0)
    titles = _smaller(rules.title_cap, rules.title_fraction, totals.titles)
    if rules.total is not None:
        # Earlier sources and new strings together are at most the total (or the known alone).
        return max(rules.total, known)
    if kind == "u" or unigrams is None:
        return None if unigrams is None else known + unigrams
    if kind == "b" or bigrams is None:
        return None if bigrams is None else known + unigrams + bigrams
    return None if titles is None else known + unigrams + bigrams + titles


def select(
    lemmas: pa.Array | None,
    unigrams: pa.Table,
    bigrams: pa.Table,
    titles: pa.Table,
    rules: Rules,
    totals: Totals,
) -> tuple[pa.Table, dict[str, int]]:
    """The entries of one Wikipedia (SELECTED), and how many each source gave.

    `lemmas` are finished WordNet entries; the tables are outputs of `best`.
    """
    chosen = pa.array(NUMBERS, pa.string())
    parts = [_tagged(chosen, "")]
    kept: dict[str, int] = {}

    def take(texts: pa.Array, source: str, cap: int | None) -> int:
        nonlocal chosen
        room = None if rules.total is None else max(rules.total - len(chosen), 0)
        new = texts.filter(pc.invert(pc.is_in(texts, value_set=chosen)))
        for limit in (cap, room):
            new = new if limit is None else new.slice(0, limit)
        chosen = pa.concat_arrays([chosen, new])
        parts.append(_tagged(new, source))
        kept[source] = len(new)
        return len(new)

    take(lemmas if lemmas is not None else pa.array([], pa.string()), "w", None)
    cap = _smaller(rules.unigram_cap, rules.unigram_fraction, totals.unigrams)
    number = take(_texts(unigrams), "u", cap)
    take(_texts(bigrams), "b", _smaller(rules.bigram_cap, rules.bigram_fraction, number))
    cap = _smaller(rules.title_cap, rules.title_fraction, totals.titles)
    take(_texts(titles), "t", cap)
    return pa.concat_tables(parts).combine_chunks(), kept


def _texts(table: pa.Table) -> pa.Array:
    return table["text"].combine_chunks()


def _tagged(texts: pa.Array, source: str) -> pa.Table:
    tags = pa.repeat(pa.scalar(source, pa.string()), len(texts))
    return pa.table({"text": texts, "source": tags}, schema=SELECTED)
