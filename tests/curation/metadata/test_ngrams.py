"""Tokens, n-gram counts and PMI against plain loops."""

from __future__ import annotations

import math
import random
import zlib

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.metadata import ngrams
from curation.metadata.strings import (
    NUMBERS,
    entry_mask,
    is_entry,
    is_punctuation,
    punctuation_mask,
    strip,
)
from tests.curation.metadata import plain

# Characters at which the classes differ: letters, marks, isolating scripts and their edges, spaces
# that Python and Rust see differently, punctuation in and outside the set, astral code points.
ALPHABET = (
    "abZé1_'-.,;<>&/()[]“”¿¡！。、「」～—–…"
    "一龥㐀𠀀𪜀豈⺀กขເກမကខཀあカー々ﾊ가ｱ"
    " \t\n\r\x0b\x1c\x1f\x85\xa0\u1680\u2003\u2028\u202f\u3000\u200b\u0301😀"
)
TEXT = st.text(st.sampled_from(ALPHABET), max_size=40)


def as_dicts(table: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    rows = table.to_pylist()
    kinds = [{r["text"]: r["count"] for r in rows if r["kind"] == k} for k in "ub"]
    assert len(kinds[0]) + len(kinds[1]) == len(rows)
    return kinds[0], kinds[1]


def plain_dicts(texts: list[str], segment=None) -> tuple[dict[str, int], dict[str, int]]:
    unigrams, bigrams = plain.count_ngrams(texts, segment)
    return dict(unigrams), {f"{a} {b}": n for (a, b), n in bigrams.items()}


def of_wiki(counts: pa.Table, wiki: str = "fr") -> pa.Table:
    return counts.add_column(0, "wiki", pa.array([wiki] * counts.num_rows))


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, max_size=4))
@example(["don't AC/DC", "a <b>c</b> &lt;ref&gt;x&lt;/ref&gt; d <\n> e"])
@example(["東京タワー、is tall", ""])
def test_default_tokenizer_counts_equal_a_plain_loop(texts: list[str]) -> None:
    assert as_dicts(ngrams.count(pa.array(texts, pa.string()))) == plain_dicts(texts)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, max_size=4), st.integers(1, 3))
def test_segmented_counts_equal_a_plain_loop(texts: list[str], size: int) -> None:
    def segment(piece: str) -> list[str]:
        return [piece[i : i + size] for i in range(0, len(piece), size)]

    assert as_dicts(ngrams.count(pa.array(texts, pa.string()), segment)) == plain_dicts(
        texts, segment
    )


def test_code_points_fall_into_the_same_class_as_in_the_plain_loop() -> None:
    planes = [*range(0xD800), *range(0xE000, 0x2F000), *range(0x2F000, 0x110000, 257)]
    text = "".join(f"a{chr(c)}b\n" for c in planes)
    tokens = ngrams.tokenize(pa.array([text]), None).tokens.to_pylist()
    assert tokens == plain.default_tokens(text)


def test_words_of_the_specification() -> None:
    tokens = ngrams.tokenize(pa.array(["don't AC/DC The the"]), None).tokens.to_pylist()
    assert tokens == ["don", "'", "t", "AC", "/", "DC", "The", "the"]
    # Hiragana, Katakana, 々, ー and Hangul accumulate; Han and Thai characters stand alone.
    tokens = ngrams.tokenize(pa.array(["東京タワーは々 แม 한국"]), None).tokens.to_pylist()
    assert tokens == ["東", "京", "タワーは々", "แ", "ม", "한국"]


@pytest.mark.spec("metaclip2", 23)
def test_punctuation_prevents_a_bigram_and_texts_do_not_join() -> None:
    _, bigrams = as_dicts(ngrams.count(pa.array(["new york, city hall", "the end"])))
    assert bigrams == {"new york": 1, "city hall": 1, "the end": 1}


@given(TEXT)
@settings(max_examples=300, deadline=None)
@example("\x1c a \x85")
@example("。！")
@example("x" * 257)
def test_filters_equal_the_string_functions(text: str) -> None:
    array = pa.array([text], pa.string())
    assert strip(array)[0].as_py() == text.strip()
    assert punctuation_mask(array)[0].as_py() == is_punctuation(text) == plain.all_punctuation(text)
    stripped = text.strip()
    assert entry_mask(pa.array([stripped]))[0].as_py() == is_entry(stripped)


def test_pmi_is_nltks_and_orders_alike() -> None:
    rng = random.Random(7)
    words = [f"w{int(rng.paretovariate(0.7)) % 200}" for _ in range(5_000)]
    texts = [" ".join(words[i : i + 50]) for i in range(0, len(words), 50)]
    unigrams, bigrams = plain.count_ngrams(texts)
    expected = plain.nltk_pmi(unigrams, bigrams)
    rows = ngrams.with_scores(of_wiki(ngrams.count(pa.array(texts)))).to_pylist()
    scores = {r["text"]: r["score"] for r in rows if r["kind"] == "b"}
    assert all(r["score"] is None for r in rows if r["kind"] == "u")
    total = sum(unigrams.values())
    assert scores.keys() == expected.keys()
    for text, score in scores.items():
        assert math.isclose(ngrams.pmi(score, total), expected[text], abs_tol=1e-9)
    ours = sorted(scores, key=lambda t: (-round(math.log2(scores[t] * total), 9), t))
    assert ours == sorted(expected, key=lambda t: (-round(expected[t], 9), t))


def test_sums_of_pieces_equal_the_whole_for_any_split() -> None:
    rng = random.Random(3)
    texts = [" ".join(rng.choice(["a", "b", "c", ".", "d"]) for _ in range(30)) for _ in range(40)]
    whole = ngrams.add([ngrams.count(pa.array(texts))])
    for pieces in (2, 7, 40):
        cuts = [texts[i::pieces] for i in range(pieces)]
        rng.shuffle(cuts)
        assert ngrams.add([ngrams.count(pa.array(c)) for c in cuts]).equals(whole)


def test_counts_of_another_wikipedia_do_not_enter_a_score() -> None:
    french = of_wiki(ngrams.count(pa.array(["a b", "a c"])))
    german = of_wiki(ngrams.count(pa.array(["a b", "b a", "a"])), "de")
    both = ngrams.with_scores(pa.concat_tables([french, german])).to_pylist()
    found = {(r["wiki"], r["text"]): r["score"] for r in both if r["kind"] == "b"}
    assert found == {
        ("fr", "a b"): 1 / 2,
        ("fr", "a c"): 1 / 2,
        ("de", "a b"): 1 / 6,
        ("de", "b a"): 1 / 6,
    }


def test_buckets_spread_and_never_move() -> None:
    tokens = pa.array([f"w{i}" for i in range(4_000)])
    wikis = pa.array(["fr"] * 4_000)
    found = ngrams.buckets(wikis, tokens, 8)
    assert found.tolist() == [zlib.crc32(f"fr\nw{i}".encode()) % 8 for i in range(4_000)]
    assert min(found.tolist().count(b) for b in range(8)) > 400
    other = ngrams.buckets(pa.array(["de"] * 4_000), tokens, 8)
    assert (found != other).sum() > 3_000


def test_no_text_no_counts() -> None:
    assert ngrams.count(pa.array([], pa.string())).num_rows == 0
    assert ngrams.count(pa.array(["", " \n", ",.", "<br>"])).num_rows == 0
    assert ngrams.count(pa.array([""]), list).schema.equals(ngrams.COUNT_SCHEMA)


def test_numbers_come_as_strings() -> None:
    assert NUMBERS[0] == "0" and NUMBERS[-1] == "99" and len(NUMBERS) == 100
