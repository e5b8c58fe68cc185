"""Unigram and bigram counts of Wikipedia text, and their PMI (Meta CLIP 2, spec 3.1 and 3.3).

A bigram is kept as "first second" with one space while it is counted (tokens hold no whitespace, so
the pair can be read back); `select` joins it without the space for unspaced languages. The chain of
tokens starts anew in each text, so counts do not depend on which texts share a table; the released
code lets bigrams span two articles of a file.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from curation.metadata.strings import ISOLATING_CLASS, PUNCTUATION, SPACE_CLASS, punctuation_mask
from curation.metadata.tokenizers import Segment

TAGS = r"&lt;.*?&gt;|<.*?>"
TOKEN = f"[{ISOLATING_CLASS}]|[^{ISOLATING_CLASS}{SPACE_CLASS}]+"
"""The default tokenizer: an isolating character, or a run of others without whitespace."""

PAIRS = ("()", "[]", "{}", "“”", "‘’", "（）", "【】", "《》", "〈〉", "「」", "『』")

COUNT_SCHEMA = pa.schema(
    [("kind", pa.string()), ("text", pa.string()), ("count", pa.uint64())],
)
"""What `count` returns: kind "u" or "b", distinct texts, exact counts."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of several texts in order; `text` is the ordinal of the text a token came from."""

    tokens: pa.Array
    text: npt.NDArray[np.int64]


def is_odd(token: str) -> bool:
    """Whether a segmenter's token starts with punctuation or has an unbalanced bracket or quote."""
    if token[0] in PUNCTUATION:
        return True
    return any((pair[0] in token) != (pair[1] in token) for pair in PAIRS)


def tokenize(texts: pa.Array, segment: Segment | None) -> Tokens:
    """Tags stripped, then the default tokenizer (`segment` None) or whitespace and `segment`."""
    stripped = pl.Series("text", texts, dtype=pl.String).str.replace_all(TAGS, "")
    if segment is None:
        frame = pl.DataFrame({"token": stripped.str.extract_all(TOKEN)}).with_row_index("text")
        frame = frame.explode("token").drop_nulls()
        tokens = frame["token"].to_arrow().cast(pa.string())
        return Tokens(tokens, frame["text"].cast(pl.Int64).to_numpy())
    found: list[str] = []
    owner: list[int] = []
    for ordinal, text in enumerate(stripped.to_list()):
        for piece in text.split():
            # A segmenter may hand back blanks; a token itself holds no whitespace.
            words = [word for token in segment(piece) for word in token.split()]
            found.extend(words)
            owner.extend([ordinal] * len(words))
    return Tokens(pa.array(found, pa.string()), np.array(owner, np.int64))


def count(texts: pa.Array, segment: Segment | None = None) -> pa.Table:
    """Unigram and bigram counts over the texts (valid UTF-8, no nulls), as COUNT_SCHEMA.

    Punctuation-only tokens, and with a segmenter also odd ones (`is_odd`), are skipped and end the
    chain of bigrams. No lower-casing.
    """
    found = tokenize(texts, segment)
    if not len(found.tokens):
        return COUNT_SCHEMA.empty_table()
    encoded = found.tokens.dictionary_encode()
    words: pa.Array = encoded.dictionary
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    counted = ~punctuation_mask(words).to_numpy(zero_copy_only=False)
    if segment is not None:
        counted &= np.fromiter((not is_odd(w) for w in words.to_pylist()), bool, len(words))
    live = counted[codes]
    unigrams = np.bincount(codes[live], minlength=len(words))
    chained = live[:-1] & live[1:] & (found.text[:-1] == found.text[1:])
    pairs = codes[:-1][chained] * len(words) + codes[1:][chained]
    pair, times = np.unique(pairs, return_counts=True)
    used = np.flatnonzero(unigrams)
    left, right = words.take(pa.array(pair // len(words))), words.take(pa.array(pair % len(words)))
    return pa.table(
        {
            "kind": pa.array(["u"] * len(used) + ["b"] * len(pair), pa.string()),
            "text": pa.concat_arrays(
                [words.take(pa.array(used)), pc.binary_join_element_wise(left, right, " ")]
            ),
            "count": pa.array(np.concatenate([unigrams[used], times]).astype(np.uint64)),
        },
        schema=COUNT_SCHEMA,
    )


def add(tables: Sequence[pa.Table], by: Sequence[str] = ("kind", "text")) -> pa.Table:
    """Sum `count` over equal keys, exactly; rows in ascending order of the keys."""
    frame = pl.concat([pl.DataFrame(t.select([*by, "count"])) for t in tables])
    summed = frame.group_by(list(by)).agg(pl.col("count").sum()).sort(list(by))
    schema = pa.schema([*(pa.field(b, pa.string()) for b in by), pa.field("count", pa.uint64())])
    return summed.to_arrow().cast(schema)


def halves(bigrams: pa.Array) -> tuple[pa.Array, pa.Array]:
    """First and second token of every "first second"."""
    parts = pc.split_pattern(bigrams, " ")
    return pc.list_element(parts, 0), pc.list_element(parts, 1)


def association(both: pa.Array, first: pa.Array, second: pa.Array) -> pa.Array:
    """n12 / (n1 * n2) in float64: with N unigram tokens, PMI = log2(association * N).

    That is NLTK's bigram PMI. It orders bigrams of one Wikipedia as PMI does, and unlike a
    logarithm its last bit is the same on every machine.
    """
    left, right = (pc.cast(n, pa.float64()) for n in (first, second))
    return pc.divide(pc.cast(both, pa.float64()), pc.multiply(left, right))


def buckets(wikis: pa.Array, tokens: pa.Array, count: int) -> npt.NDArray[np.int64]:
    """Bucket of every (wiki, token), in [0, count): a hash, the same on every machine."""
    joined = pc.binary_join_element_wise(wikis, tokens, "\n").dictionary_encode()
    names = joined.dictionary.cast(pa.binary()).to_pylist()
    hashed = np.fromiter((zlib.crc32(name) % count for name in names), np.int64, len(names))
    return hashed[joined.indices.to_numpy(zero_copy_only=False)]


def token_counts(pairs: pa.Table, tokens: pa.Array, unigrams: pa.Table) -> pa.Array:
    """The count of one token of every pair, of its own Wikipedia.

    `pairs` has column `wiki`, `tokens` is row by row with it, `unigrams` has `wiki`, `text` and
    `count`. Every token of a counted pair must be among the unigrams (null otherwise).
    """
    left = pl.DataFrame({"wiki": pl.Series(pairs["wiki"]), "text": pl.Series(tokens)})
    right = pl.DataFrame(unigrams.select(["wiki", "text", "count"]))
    joined = left.join(right, on=["wiki", "text"], how="left", maintain_order="left")
    return joined["count"].to_arrow().cast(pa.uint64())


def pmi(score: float, tokens: int) -> float:
    """PMI in bits of a bigram whose `association` is `score`, in a text of `tokens` unigrams."""
    return float(np.log2(score * tokens))


def with_scores(counts: pa.Table) -> pa.Table:
    """Counts (wiki, kind, text, count) with `score`: `association` for bigrams, else null."""
    is_pair = pc.equal(counts["kind"], "b")
    ones, pairs = counts.filter(pc.invert(is_pair)), counts.filter(is_pair)
    first, second = (
        token_counts(pairs, half, ones) for half in halves(pairs["text"].combine_chunks())
    )
    score = association(pairs["count"].combine_chunks(), first, second)
    return pa.concat_tables(
        [
            ones.append_column("score", pa.nulls(ones.num_rows, pa.float64())),
            pairs.append_column("score", score),
        ]
    )
