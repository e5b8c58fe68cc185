"""t, p and probabilities against the formulas on dense lists (spec 5), and the guards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.metaclip2.thresholds import (
    Thresholds,
    entry_probability,
    find_thresholds,
    p_to_t,
    t_to_p,
)
from schemas.errors import IntegrityError, UsageError
from tests.curation.metaclip2 import plain

DENSE = st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any)
SHARES = st.floats(0, 1)


def uint(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.uint64)


def found(languages: dict[str, Sequence[int]], **settings) -> Thresholds:
    counts = {key: plain.language_counts(dense) for key, dense in languages.items()}
    return find_thresholds(counts, {k: len(d) for k, d in languages.items()}, **settings)


@pytest.mark.spec("metaclip2", 1)
def test_published_numbers() -> None:
    assert t_to_p(uint([5, 100, 1000]), 100) == 5 / 1105
    assert p_to_t(uint([5, 100, 1000]), 3, 0.06) == 100
    assert entry_probability(uint([5, 100, 1000]), 100).tolist() == [1, 1, 0.1]


@pytest.mark.spec("metaclip2", 2)
def test_the_tail_is_strictly_below_t() -> None:
    assert t_to_p(uint([99, 100, 101]), 100) == 99 / 300
    assert entry_probability(uint([100, 3 * 10**9]), 100)[0] == 1.0
    for t in (3, 7, 49, 170_000):  # t / t is 1 without rounding
        assert entry_probability(uint([t]), t)[0] == 1.0


@pytest.mark.spec("metaclip2", 3)
def test_ties_take_the_smaller_threshold() -> None:
    assert p_to_t(uint([2, 2, 2, 2]), 4, 0.375) == 2
    # Cumulative shares 0.25, 0.5 (count 1) and 1 (count 2): 0.75 is as near to both counts.
    assert p_to_t(uint([1, 2, 1]), 3, 0.75) == 1
    assert p_to_t(uint([1, 3]), 2, 0.625) == 1
    # An entry without a match, at share 0, is as near to 0.25 as the first of two.
    assert p_to_t(uint([2, 2]), 3, 0.25) == 1
    assert p_to_t(uint([2, 2]), 3, 0.26) == 2


@pytest.mark.spec("metaclip2", 4)
def test_entries_without_a_match_do_not_make_a_language_vanish() -> None:
    for counts, size in ((uint([0, 0, 0, 100]), 4), (uint([100]), 4)):
        assert p_to_t(counts, size, 0.06) == 1
    probabilities = entry_probability(uint([0, 0, 0, 100]), 1)
    assert probabilities.tolist() == [1, 1, 1, 0.01]
    assert not np.isnan(probabilities).any()


@pytest.mark.spec("metaclip2", 5)
def test_a_language_without_matches_is_skipped_and_said() -> None:
    result = found({"en": [5, 100, 1000], "de": [0, 0], "fr": []}, p=0.06)
    assert list(result.languages) == ["en"]
    assert [w for w in result.warnings if "de, fr" in w and "skipped" in w]
    assert found({"en": []}, p=0.5).languages == {}
    assert find_thresholds({}, {}, p=0.5).languages == {}
    for function in (lambda c: t_to_p(c, 3), lambda c: p_to_t(c, 5, 0.1)):
        with pytest.raises(ValueError, match="no entry has a match"):
            function(uint([0, 0]))


@pytest.mark.spec("metaclip2", 6)
def test_t_en_above_every_count_thins_nothing_anywhere() -> None:
    languages = {"en": [0, 5, 100], "de": [3, 0, 7, 7], "fr": [1]}
    result = found(languages, t_en=101)
    assert result.p == 1
    for key, dense in languages.items():
        assert entry_probability(uint(dense), result.languages[key].t).tolist() == [1] * len(dense)
    assert [w for w in result.warnings if "p = 1" in w and "t_en=101" in w]


@pytest.mark.spec("metaclip2", 6)
@pytest.mark.parametrize("t_en", [1, 4, 5])
def test_t_en_at_or_below_the_smallest_count_leaves_no_tail(t_en: int) -> None:
    result = found({"en": [0, 5, 100], "de": [3, 4, 7], "fr": [0, 3, 7]}, t_en=t_en)
    assert result.p == 0
    # German: every entry has a match, so its smallest count; French has one without: the guard's 1.
    assert {k: v.t for k, v in result.languages.items()} == {"en": t_en, "de": 3, "fr": 1}


@settings(deadline=None)
@given(DENSE, SHARES)
def test_p_to_t_equals_the_dense_formula(dense: list[int], p: float) -> None:
    expected = plain.p_to_t(dense, p)
    assert p_to_t(uint(dense), len(dense), p) == expected
    sparse = plain.language_counts(dense).counts
    assert p_to_t(sparse, len(dense), p) == expected


@settings(deadline=None)
@given(DENSE, st.integers(1, 60))
def test_t_to_p_and_probabilities_equal_the_dense_formula(dense: list[int], t: int) -> None:
    assert t_to_p(uint(dense), t) == plain.t_to_p(dense, t)
    expected = [plain.probability(c, t) for c in dense]
    assert entry_probability(uint(dense), t).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 500), min_size=2, max_size=200), SHARES)
@pytest.mark.spec("metaclip2", 28)
def test_the_tail_is_within_one_count_step_of_p(dense: list[int], p: float) -> None:
    language = found({"de": dense}, p=p).languages["de"]
    assert language.tail == plain.t_to_p(dense, language.t)
    # The nearest cumulative share lies in the step of t; p is off it by half an entry at most.
    later = [c for c in dense if c > language.t]
    slack = max(language.t, min(later, default=0)) / sum(dense) / 2
    assert language.tail - slack <= p + 1e-12
    assert p <= language.tail + language.step + slack + 1e-12


@pytest.mark.spec("metaclip2", 28)
def test_the_distance_of_the_tail_from_p_is_reported_for_each_language() -> None:
    rng = np.random.default_rng(3)
    languages = {
        key: (1 + scale / np.arange(1, 2000)).astype(int).tolist()
        for key, scale in (("en", 200_000), ("de", 30_000), ("fr", 9_000))
    }
    for dense in languages.values():
        rng.shuffle(dense)
    result = found(languages, t_en=400)
    stats = result.to_stats()
    assert stats["t_en"] == 400
    assert stats["p"] == plain.t_to_p(languages["en"], 400)
    for key, dense in languages.items():
        shown = stats["languages"][key]
        assert shown["gap"] == plain.t_to_p(dense, shown["t"]) - stats["p"]
        assert abs(shown["gap"]) <= shown["step"] + shown["t"] / sum(dense)
        assert (shown["entries"], shown["hit"], shown["matches"]) == (1999, 1999, sum(dense))


def test_english_keeps_t_en_as_given_and_p_comes_from_it() -> None:
    languages = {"en": [5, 100, 1000], "de": [1, 2, 3, 4]}
    result = found(languages, t_en=150)
    assert result.p == 105 / 1105
    assert result.t_en == 150
    assert result.languages["en"].t == 150
    assert result.languages["de"].t == plain.p_to_t(languages["de"], result.p)
    assert found(languages, p=105 / 1105).languages["en"].t == 100


def test_a_shared_threshold_is_the_english_one() -> None:
    languages = {"en": [5, 100, 1000], "de": [1, 2, 300, 400]}
    result = found(languages, t_en=100, threshold="shared")
    assert {k: v.t for k, v in result.languages.items()} == {"en": 100, "de": 100}
    by_p = found(languages, p=0.06, threshold="shared")
    assert {v.t for v in by_p.languages.values()} == {plain.p_to_t(languages["en"], 0.06)}


def test_without_isolation_the_one_list_stands_for_english() -> None:
    result = found({"all": [5, 100, 1000]}, t_en=100, isolation=False)
    assert (result.p, result.languages["all"].t) == (5 / 1105, 100)


def test_without_english_p_is_required() -> None:
    assert found({"de": [1, 2, 3]}, p=0.3).languages["de"].t == plain.p_to_t([1, 2, 3], 0.3)
    with pytest.raises(UsageError, match=r"t_en=5.*'en'.*give p"):
        found({"de": [1, 2, 3], "en": [0, 0]}, t_en=5)
    with pytest.raises(UsageError, match=r"threshold=shared.*'en'"):
        found({"de": [1, 2, 3]}, p=0.1, threshold="shared")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of p and t_en"),
        ({"p": 0.1, "t_en": 3}, "exactly one of p and t_en"),
        ({"p": -0.1}, "p=-0.1"),
        ({"p": 1.5}, "p=1.5"),
        ({"p": float("nan")}, "p=nan"),
        ({"t_en": 0}, "t_en=0"),
        ({"p": 0.1, "threshold": "none"}, "threshold=none"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        found({"en": [1, 2, 3]}, **settings)


def test_counts_of_another_metadata_are_refused() -> None:
    counts = {"en": plain.language_counts([1, 2, 3])}
    for sizes in ({"en": 2}, {"de": 3}):
        with pytest.raises(IntegrityError, match="entry 2 of 'en'"):
            find_thresholds(counts, sizes, p=0.1)


def test_t_1_is_a_warning_that_says_why() -> None:
    (few,) = found({"fr": [0] * 90 + [1] * 8 + [2, 5]}, p=0.06).warnings
    assert few.startswith("fr: t = 1")
    assert "15 matches on 100 entries (0.15 an entry, 10 hit)" in few
    assert "matched once hold 53.3% of the matches" in few
    (lone,) = found({"fr": [0, 0, 0, 100]}, p=0.06).warnings
    assert "no tail is nearest to 6.0%" in lone
    (no_tail,) = found({"fr": [0, 3, 7]}, p=0).warnings
    assert "p = 0 leaves no tail" in no_tail
    assert found({"en": [5, 100, 1000]}, p=0.06).warnings == []
