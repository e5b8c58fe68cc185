"""Selection rules, caps and precedence against plain loops; merging; fingerprints."""

from __future__ import annotations

import random
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.metadata import merge, ngrams, select
from curation.metadata.select import ENGLISH, OTHERS, Rules, Totals
from curation.metadata.strings import NUMBERS
from curation.metadata.wikis import WIKIPEDIAS, metadata_key
from curation.metadata.wordnets import lemma_entries
from tests.curation.metadata import plain

Scores = dict[str, float]


def rows(scores: dict[str, int] | Scores, column: str) -> pa.Table:
    kind = pa.uint64() if column == "count" else pa.float64()
    values = list(scores.values())
    empty = pa.nulls(len(scores), pa.float64() if column == "count" else pa.uint64())
    other = "score" if column == "count" else "count"
    return pa.table(
        {"text": pa.array(list(scores), pa.string()), column: pa.array(values, kind), other: empty}
    )


def vectorised(
    wiki: str,
    lemmas: list[str],
    unigrams: dict[str, int],
    bigrams: Scores,
    titles: dict[str, int],
    rules: Rules,
    tokens: int = 1,
    pieces: int = 1,
    seed: int = 0,
) -> dict[str, str]:
    """The product's selection over sources cut into pieces; `bigrams` holds association scores."""
    entries = lemma_entries(pa.array(lemmas, pa.string()))
    totals = Totals(tokens, len(unigrams), len(titles))
    best = {}
    for kind, scores in (("u", unigrams), ("b", bigrams), ("t", titles)):
        limit = select.needed(kind, rules, totals, len(entries))
        items = list(scores.items())
        random.Random(seed).shuffle(items)
        column = "score" if kind == "b" else "count"
        parts = [
            select.best(
                [
                    select.candidates(
                        kind, wiki, rows(dict(items[i::pieces]), column), rules, totals
                    )
                ],
                limit,
            )
            for i in range(pieces)
        ]
        best[kind] = select.best(parts, limit)
    table, kept = select.select(entries, best["u"], best["b"], best["t"], rules, totals)
    texts, sources = table["text"].to_pylist(), table["source"].to_pylist()
    found = dict(zip(texts, sources, strict=True))
    assert len(found) == len(texts) and kept == {s: sources.count(s) for s in "wubt"}
    return found


WORD = st.text(st.sampled_from("ab '.。é"), max_size=3)
COUNTS = st.dictionaries(WORD, st.integers(1, 4), max_size=14)
PAIRS = st.dictionaries(
    st.tuples(st.sampled_from(["a", "ab", "b"]), st.sampled_from(["b", "bb", "a"])).map(" ".join),
    st.sampled_from([0.25, 0.5, 1.0]),
    max_size=8,
)
LIMIT = st.one_of(st.none(), st.integers(0, 6))
FRACTION = st.sampled_from([None, 0.1, 0.4, 0.76, 1.0])
RULES = st.builds(
    Rules,
    unigram_count=st.integers(1, 3),
    unigram_cap=LIMIT,
    unigram_fraction=FRACTION,
    bigram_pmi=st.sampled_from([None, -1.0, 0.0]),
    bigram_cap=LIMIT,
    bigram_fraction=FRACTION,
    title_views=st.integers(1, 3),
    title_cap=LIMIT,
    title_fraction=FRACTION,
    total=st.sampled_from([None, 103, 108]),
)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["fr", "ja"]),
    st.lists(WORD, max_size=6),
    COUNTS,
    PAIRS,
    COUNTS,
    RULES,
    st.integers(1, 3),
)
def test_selection_equals_a_plain_loop_for_any_split(
    wiki: str,
    lemmas: list[str],
    unigrams: dict[str, int],
    bigrams: Scores,
    titles: dict[str, int],
    rules: Rules,
    pieces: int,
) -> None:
    logarithms = {text: {0.25: -2.0, 0.5: -1.0, 1.0: 0.0}[s] for text, s in bigrams.items()}
    expected = plain.select(wiki, lemmas, unigrams, logarithms, titles, rules)
    # Order too, but for wordnet's, which is ascending here as there.
    found = vectorised(wiki, lemmas, unigrams, bigrams, titles, rules, pieces=pieces)
    assert list(found.items()) == list(expected.items())


@pytest.mark.spec("metaclip2", 22)
def test_caps_count_only_new_strings() -> None:
    unigrams = {f"w{i}": 100 - i for i in range(10)}
    lemmas = ["w0", "w1", "w2", "w3"]
    rules = replace(OTHERS, unigram_cap=5, unigram_fraction=None)
    found = vectorised("fr", lemmas, unigrams, {}, {}, rules)
    assert [t for t, s in found.items() if s == "u"] == ["w4", "w5", "w6", "w7", "w8"]
    assert [t for t, s in found.items() if s == "w"] == lemmas


def test_published_caps_and_fractions() -> None:
    unigrams = {f"u{i:04d}": 5_000 - i for i in range(1_000)}
    bigrams = {f"a{i} b{i}": 1.0 / (i + 1) for i in range(100)}
    titles = {f"T{i}": 100 - i for i in range(50)}
    found = vectorised("fr", [], unigrams, bigrams, titles, OTHERS)
    counts = {s: list(found.values()).count(s) for s in ("", "u", "b", "t")}
    assert counts == {"": 100, "u": 100, "b": 40, "t": 38}
    totals = Totals(10**9, 10**7, 10**6)
    assert select.needed("u", OTHERS, totals, 0) == 100 + 251_465
    assert select.needed("b", OTHERS, totals, 0) == 100 + 251_465 + 100_586
    assert select.needed("t", OTHERS, totals, 5) == 105 + 251_465 + 100_586 + 61_235


def test_english_thresholds_and_total() -> None:
    tokens = 2**40
    unigrams = {"common": 100, "rare": 99, "the": 10**9}
    bigrams = {"hong kong": 2.0**-10, "of the": 2.0**-11}  # PMI 30 and 29
    titles = {"Dog": 70, "Hound": 69}
    found = vectorised("en", ["cat"], unigrams, bigrams, titles, select.rules_of("en"), tokens)
    assert list(found)[100:] == ["cat", "the", "common", "hong kong", "Dog"]
    short = replace(ENGLISH, total=103)
    assert list(vectorised("en", ["cat"], unigrams, bigrams, titles, short, tokens))[100:] == [
        "cat",
        "the",
        "common",
    ]
    assert (ENGLISH.total, ENGLISH.bigram_pmi) == (500_000, 30.0)


@pytest.mark.spec("metaclip2", 23)
def test_bigrams_of_unspaced_languages_are_joined() -> None:
    texts = ["東京 タワー 、 塔", "東京 タワー"]
    counted = ngrams.count(pa.array(texts), lambda piece: [piece])
    counted = counted.add_column(0, "wiki", pa.array(["ja"] * counted.num_rows))
    scored = ngrams.with_scores(counted)
    pairs = {r["text"]: r["score"] for r in scored.to_pylist() if r["kind"] == "b"}
    assert list(pairs) == ["東京 タワー"]
    rules = replace(OTHERS, bigram_fraction=None)
    assert "東京タワー" in vectorised("ja", [], {}, pairs, {}, rules)
    assert "東京 タワー" in vectorised("fr", [], {}, pairs, {}, rules)


@pytest.mark.spec("metaclip2", 24)
def test_titles_with_too_many_characters_or_only_punctuation_are_absent() -> None:
    titles = {"x" * 256: 9, "y" * 257: 9, "¿¡!": 9, "¿！": 9, " Berlin": 2, "Berlin": 1}
    rules = replace(OTHERS, title_fraction=None)
    found = vectorised("fr", [], {}, {}, titles, rules)
    # "¡" is not in the published set of punctuation.
    assert list(found)[100:] == ["x" * 256, "¿¡!", "Berlin"]


KEYS = ("ar", "be", "en", "nds", "zh")


@pytest.mark.spec("metaclip2", 26)
def test_wiki_codes_to_metadata_keys() -> None:
    assert metadata_key("zh_classical", KEYS) == metadata_key("zh_min_nan", KEYS) == "zh"
    assert metadata_key("be_tarask", KEYS) == "be" and metadata_key("nds_nl", KEYS) == "nds"
    assert metadata_key("ha", KEYS) == metadata_key("simple", KEYS) == "other"
    nowhere = ("bat_smg", "cbk_zam", "fiu_vro", "map_bms", "roa_rup", "roa_tara")
    assert {metadata_key(wiki, KEYS) for wiki in nowhere} == {"other"}
    owned = merge.owners(["zh_yue", "zh", "ha", "bat_smg", "en"], KEYS)
    assert owned == {"en": ["en"], "other": ["bat_smg", "ha"], "zh": ["zh", "zh_yue"]}


@pytest.mark.spec("metaclip2", 26)
def test_the_released_list_against_lid_176() -> None:
    from curation.metaclip2.language import LANGUAGE_MAP

    assert len(WIKIPEDIAS) == len(set(WIKIPEDIAS)) == 330
    keys = set(LANGUAGE_MAP.values()) - {"other"}
    without = [w for w in WIKIPEDIAS if w not in keys]
    assert len(keys) == 173 and len(without) == 157
    assert {"ha", "ig", "ny", "rw", "sn", "xh", "zu"} <= set(without)
    owned = merge.owners(WIKIPEDIAS, keys)
    assert sum(map(len, owned.values())) == 330
    assert owned["zh"] == ["zh", "zh_classical", "zh_min_nan", "zh_yue"]
    assert {"bat_smg", "cbk_zam", "fiu_vro", "map_bms", "roa_rup", "roa_tara"} <= set(
        owned["other"]
    )


def selected(*pairs: tuple[str, str]) -> pa.Table:
    texts, sources = zip(*pairs, strict=True)
    return pa.table({"text": texts, "source": sources}, schema=select.SELECTED)


def test_merged_entries_have_numbers_first_then_code_point_order() -> None:
    number = [(n, "") for n in NUMBERS]
    one = selected(*number, ("ß", "u"), ("b c", "b"), ("z", "t"), ("100", "u"))
    two = selected(*number, ("z", "w"), ("ß", "t"), ("𐀀", "t"), ("ﬀ", "t"))
    table = merge.combine({"zh": one, "zh_yue": two, "ha": one}, KEYS)
    assert table["metadata"].to_pylist() == ["other"] * 104 + ["zh"] * 106
    zh = table.slice(104)
    assert zh["entry"].to_pylist() == list(range(106))
    assert zh["text"].to_pylist() == [*NUMBERS, "100", "b c", "z", "ß", "ﬀ", "𐀀"]
    assert zh["source"].to_pylist()[100:] == ["u", "b", "w", "u", "t", "t"]


@pytest.mark.spec("metaclip2", 25)
def test_order_of_input_does_not_matter_and_fingerprints_tell_lists_apart() -> None:
    words = [f"w{i}" for i in range(300)]
    one = selected(*[(n, "") for n in NUMBERS], *[(w, "u") for w in words])
    shuffled = one.take(pa.array(random.Random(1).sample(range(400), 400)))
    first = merge.combine({"en": one, "be": one}, KEYS)
    again = merge.combine({"be": shuffled, "en": shuffled}, KEYS)
    assert again.equals(first)
    prints = merge.fingerprints(first)
    assert prints["en"] == prints["be"] and prints == merge.fingerprints(again)
    changed = selected(*[(n, "") for n in NUMBERS], *[(w + "x", "u") for w in words])
    assert merge.fingerprints(merge.combine({"en": changed}, KEYS))["en"] != prints["en"]
    # Sources do not matter to entry ids, boundaries of strings do.
    a, b = (merge.fingerprints(merge.combine({"en": selected(*x)}, KEYS))["en"] for x in (
        [("a", "u"), ("bc", "u")], [("ab", "t"), ("c", "t")],
    ))  # fmt: skip
    assert a != b
    c = merge.fingerprints(merge.combine({"en": selected(("a", "t"), ("bc", "w"))}, KEYS))["en"]
    assert a == c
