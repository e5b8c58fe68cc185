"""Quality rules: against a plain reading of the papers' words, and at their bounds."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.text.filters import (
    FINEWEB,
    GOPHER,
    MEASURES,
    Measured,
    reason_of,
    repeats,
    verdict,
)
from schemas.reasons import REASONS

WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "e"]), max_size=40)


def repeated(words: list[str], n: int) -> float:
    """Share of characters in n-grams that occurred before, by sets of positions."""
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            covered |= set(range(i, i + n))
        seen.add(gram)
    total = sum(map(len, words))
    return sum(len(words[i]) for i in covered) / total if total else 0.0


def top(words: list[str], n: int) -> float:
    """Characters of the most frequent repeating n-gram times its count, over all."""
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    most = max(counts.values(), default=0)
    if most < 2:
        return 0.0
    longest = max(sum(map(len, gram)) for gram, count in counts.items() if count == most)
    return longest * most / sum(map(len, words))


@given(WORDS, st.integers(2, 10))
def test_ngram_shares_equal_a_slow_count(words: list[str], n: int) -> None:
    measured = Measured(" ".join(words))
    assert measured.repeated_ngrams(n) == pytest.approx(repeated(words, n))
    assert measured.top_ngram(n) == pytest.approx(top(words, n))


def test_repeated_lines_and_paragraphs() -> None:
    assert repeats(["ab", "c", "ab", "ab"]) == (2 / 4, 4 / 7)
    assert repeats([]) == (0.0, 0.0)
    text = "one\ntwo\none\n\n\nthree\n \none\ntwo\none\n"
    assert MEASURES["duplicate_lines"](Measured(text)) == 4 / 7
    assert MEASURES["duplicate_paragraphs"](Measured(text)) == 1 / 3


def test_the_presets_hold_the_published_numbers() -> None:
    """Rae et al. 2021, section A1.1 and Table A1; Penedo et al. 2024, section 3.5."""
    assert [GOPHER[f"max_top_{n}_gram"] for n in (2, 3, 4)] == [0.20, 0.18, 0.16]
    grams = [GOPHER[f"max_duplicate_{n}_grams"] for n in range(5, 11)]
    assert grams == [0.15, 0.14, 0.13, 0.12, 0.11, 0.10]
    assert (GOPHER["min_words"], GOPHER["max_words"]) == (50, 100_000)
    assert FINEWEB["min_punctuated_lines"] == 0.12 and FINEWEB["max_short_lines"] == 0.67


GOOD = (
    "The river rose in the night and took the bridge that we have crossed since spring. "
    "Nobody slept; people stood with lamps along both banks, counting boats, calling names, "
    "and waiting until morning showed what was left to be saved. By noon two carts came from "
    "town bringing rope, bread and six carpenters, who measured every pile still standing."
)
# rule: (a text like GOOD that fails it alone, by the preset)
CASES = {
    "min_words": "The end of the story and that is all we have to be told.",
    "max_words": GOOD + " word" * 100_000,
    "min_mean_word_length": "to be or at it so up in on we " * 6 + "and the of",
    "max_mean_word_length": "the and " + "internationalisation-machinery " * 60,
    "max_symbol_ratio": GOOD.replace(" ", " #", 12),
    "max_bullet_lines": "\n".join("- " + line for line in GOOD.split(",")),
    "max_ellipsis_lines": GOOD.replace(". ", "...\n"),
    "min_alphabetic_words": GOOD + " 1999" * 20,
    "min_stop_words": "Der Fluss stieg in der Nacht und nahm die Brücke mit sich fort. " * 6,
    "max_duplicate_lines": "\n".join([GOOD[:170], GOOD[170:], "yes", "yes", "yes"]),
    "max_duplicate_paragraphs": "\n\n".join([GOOD[:170] + "\n" + GOOD[170:], *["x\nz"] * 2]),
    "min_punctuated_lines": GOOD.replace(". ", "\n").replace(", ", "\n").removesuffix("."),
    "max_short_lines": GOOD.replace(" ", "\n", 50),
}


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_rejects_by_its_own_name(rule: str) -> None:
    preset = GOPHER if rule in GOPHER else FINEWEB
    assert verdict(GOOD, preset) is None
    assert verdict(CASES[rule], {rule: preset[rule]}) == rule
    assert verdict(GOOD, {rule: preset[rule]}) is None


def test_a_value_at_its_bound_passes() -> None:
    assert verdict("a b c", {"min_words": 3, "max_words": 3}) is None
    assert verdict("a b c", {"min_words": 3.5}) == "min_words"
    assert verdict("a b c d", {"max_words": 3}) == "max_words"


def test_gopher_rejects_repetition_and_every_rule_has_a_registered_reason() -> None:
    again = " ".join(GOOD.split()[:30])
    assert verdict(f"{GOOD} {again} {again} {again}", GOPHER) == "max_duplicate_ngrams"
    assert verdict(GOOD + " going home" * 15, GOPHER) == "max_top_ngram"
    for rule in {**GOPHER, **FINEWEB}:
        assert reason_of(rule) in REASONS


def test_texts_without_words_are_no_fault_of_a_rule() -> None:
    for name, measure in MEASURES.items():
        assert measure(Measured(" \n ")) == 0, name
