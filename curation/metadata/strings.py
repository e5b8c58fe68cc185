"""Character classes and the common filters of the metadata build (Meta CLIP 2, spec sections
3.2-3.4).
"""

from __future__ import annotations

import re
import string

import pyarrow as pa
import pyarrow.compute as pc

FULL_WIDTH_PUNCTUATION = "，。、；：？¿！“”‘’（）【】《》〈〉「」『』～—"
PUNCTUATION = frozenset(string.punctuation + FULL_WIDTH_PUNCTUATION)
"""ASCII's 32 marks and the listed others; an entry made only of these is dropped."""

MAX_ENTRY_CHARACTERS = 256
NUMBERS = tuple(str(n) for n in range(100))
"""Every language's list begins with the strings "0".."99"."""

_ISOLATING_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2CEB0, 0x2EBEF),
    (0xF900, 0xFAFF),
    (0x2E80, 0x2EFF),
    (0x2F00, 0x2FDF),
    (0x2FF0, 0x2FFF),
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x0F00, 0x0FFF),  # Tibetan
)
ISOLATING_CLASS = (
    "".join(f"{chr(low)}-{chr(high)}" for low, high in _ISOLATING_RANGES)
    + re.escape(string.punctuation)
    + FULL_WIDTH_PUNCTUATION
)
"""Body of a regular expression's character class: a character in it is a token of its own (section
3.4).
"""

# Python's str.strip() set, which Arrow's utf8_trim_whitespace does not quite share
# (U+001C..U+001F).
_SPACES = "".join(chr(c) for c in range(0x3001) if chr(c).isspace())
SPACE_CLASS = "".join(f"\\x{{{ord(c):x}}}" for c in _SPACES)
"""Body of a character class: what `str.isspace` calls whitespace."""
_PUNCTUATION_CLASS = "".join(f"\\x{{{ord(c):x}}}" for c in sorted(PUNCTUATION))


def is_punctuation(text: str) -> bool:
    """Whether every character of `text` is punctuation (true of the empty string)."""
    return all(character in PUNCTUATION for character in text)


def is_entry(text: str, *, limit: int | None = MAX_ENTRY_CHARACTERS) -> bool:
    """The common filter on one stripped string: not empty, not too long, not only punctuation
    (section 3.2).
    """
    return bool(text) and (limit is None or len(text) <= limit) and not is_punctuation(text)


def strip(texts: pa.Array) -> pa.Array:
    """`str.strip` of every string."""
    return pc.utf8_trim(texts, characters=_SPACES)


def punctuation_mask(texts: pa.Array) -> pa.BooleanArray:
    """`is_punctuation` of every string."""
    return pc.match_substring_regex(texts, f"\\A[{_PUNCTUATION_CLASS}]*\\z")


def entry_mask(texts: pa.Array, *, limit: int | None = MAX_ENTRY_CHARACTERS) -> pa.BooleanArray:
    """`is_entry` of every stripped string, for Arrow arrays."""
    keep = pc.invert(punctuation_mask(texts))
    if limit is not None:
        keep = pc.and_(keep, pc.less_equal(pc.utf8_length(texts), limit))
    return keep
