"""Settings of the quality rules: ``rules.NAME=NUMBER`` sets one, ``rules.NAME=off`` takes it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Rule = float | Literal[False] | None


def _rule(what: str) -> Rule:
    return Field(None, description=what)


class Rules(BaseModel):
    """Bounds of rules, on top of those that ``filters`` brings. Shares lie between 0 and 1."""

    model_config = ConfigDict(extra="forbid")
    min_words: Rule = _rule("words at least")
    max_words: Rule = _rule("words at most")
    min_mean_word_length: Rule = _rule("characters of a word on average, at least")
    max_mean_word_length: Rule = _rule("and at most")
    max_symbol_ratio: Rule = _rule("number signs, or ellipses, a word")
    max_bullet_lines: Rule = _rule("share of lines that begin with a bullet")
    max_ellipsis_lines: Rule = _rule("share of lines that end in an ellipsis")
    min_alphabetic_words: Rule = _rule("share of words with a letter")
    min_stop_words: Rule = _rule("of: the be to of and that have with")
    max_duplicate_lines: Rule = _rule("share of lines that repeat one before")
    max_duplicate_paragraphs: Rule = _rule("share of paragraphs that repeat one before")
    max_duplicate_line_characters: Rule = _rule("share of characters in repeated lines")
    max_duplicate_paragraph_characters: Rule = _rule("share of characters in repeated paragraphs")
    max_top_2_gram: Rule = _rule("share of characters in the most frequent 2-gram")
    max_top_3_gram: Rule = _rule("of the 3-gram")
    max_top_4_gram: Rule = _rule("of the 4-gram")
    max_duplicate_5_grams: Rule = _rule("share of characters in repeated 5-grams")
    max_duplicate_6_grams: Rule = _rule("in 6-grams")
    max_duplicate_7_grams: Rule = _rule("in 7-grams")
    max_duplicate_8_grams: Rule = _rule("in 8-grams")
    max_duplicate_9_grams: Rule = _rule("in 9-grams")
    max_duplicate_10_grams: Rule = _rule("in 10-grams")
    min_punctuated_lines: Rule = _rule("share of lines that end like a sentence")
    max_short_lines: Rule = _rule("share of lines of at most 30 characters")
    max_line_ends: Rule = _rule("line ends a word")

    def active(self, presets: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Bounds by rule: the strictest of the presets', or the user's own."""
        found: dict[str, float] = {}
        for name, bound in (item for preset in presets for item in preset.items()):
            strict = max if name.startswith("min_") else min
            found[name] = strict(found.get(name, bound), bound)
        for name, own in self.model_dump().items():
            if own is False:
                found.pop(name, None)
            elif own is not None:
                found[name] = own
        return {name: float(bound) for name, bound in sorted(found.items())}
