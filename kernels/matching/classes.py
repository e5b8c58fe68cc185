"""Character classes and normalisation of the matching modes, in plain Python.

This is the definition; the compiled kernel reads the same classes from the automaton file, so a
file matches alike under every Python version. Sections are those of the MetaCLIP 2 paper's spec:
3.4 the isolating set, 4.3 spacing, 9.2 the released code's defects that mode ``official`` keeps.
"""

from __future__ import annotations

import string
import unicodedata
from functools import lru_cache
from typing import Literal

import numpy as np

Mode = Literal["repaired", "official"]
Spacing = Literal["isolating", "always"]

MODES: tuple[Mode, ...] = ("repaired", "official")
SPACINGS: tuple[Spacing, ...] = ("isolating", "always")

RUN, SINGLE, SPACE, WRAPPED = 0, 1, 2, 3
"""Classes of a character in a text: part of a run, a token of its own, white space, a token of its
own that stands between two added spaces."""

UNICODE_VERSION = unicodedata.unidata_version
CODE_POINTS = 0x110000
PAGE = 256

ISOLATING_RANGES = (
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
    (0x0E00, 0x0E7F),
    (0x0E80, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x0F00, 0x0FFF),
)
"""Han, Thai, Lao, Burmese, Khmer and Tibetan as the released code lists them (3.4)."""

ISOLATING_PUNCTUATION = frozenset(
    string.punctuation + "，。、；：？！“”‘’（）【】《》〈〉「」『』～—"
)
"""ASCII punctuation and the full-width punctuation that the released code lists (3.4)."""

UNSPACED_RANGES = (
    *ISOLATING_RANGES,
    (0x3005, 0x3007),  # 々 〆 〇
    (0x2EBF0, 0x2EE5F),  # Han extension I
    (0x2F800, 0x2FA1F),  # Han compatibility supplement
    (0x30000, 0x3347F),  # Han extensions G, H and J
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAA7F),  # Myanmar extended A
    (0x116D0, 0x116FF),  # Myanmar extended C
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana phonetic extensions
    (0xFF65, 0xFF9F),  # half-width Katakana
    (0x1AFF0, 0x1AFFF),  # Kana extended B
    (0x1B000, 0x1B16F),  # Kana supplement, extended A, small Kana
)
"""Scripts written without spaces, as mode ``repaired`` takes them: 3.4 and all Kana."""

WRAPPED_CHARACTERS = ",.;:?!`"
SPACED_CHARACTERS = "\t\n\r"


def is_isolating(char: str) -> bool:
    """True if the released code puts no space beside an entry's edge at this character (3.4)."""
    point = ord(char)
    return char in ISOLATING_PUNCTUATION or any(a <= point <= b for a, b in ISOLATING_RANGES)


def is_word(char: str) -> bool:
    """True for letters, marks and decimal digits of spaced scripts (L*, M*, Nd).

    Mode ``repaired`` voids an occurrence with an edge between two such characters.
    """
    category = unicodedata.category(char)
    if category[0] not in "LM" and category != "Nd":
        return False
    point = ord(char)
    return not any(a <= point <= b for a, b in UNSPACED_RANGES)


def normalise(text: str) -> str:
    """Every run of white space (``str.isspace``) becomes one space, the ends are stripped."""
    return " ".join(text.split())


def space_text(text: str) -> str:
    """The released code's spacing of a text (4.3)."""
    spaced = f" {text} "
    for char in WRAPPED_CHARACTERS:
        spaced = spaced.replace(char, f" {char} ")
    for char in SPACED_CHARACTERS:
        spaced = spaced.replace(char, " ")
    return spaced


def space_entry(entry: str, spacing: Spacing = "isolating") -> str:
    """The released code's spacing of an entry (4.3).

    ``isolating`` adds no space at an edge that is in the isolating set (Meta CLIP 2); ``always``
    adds both (MetaCLIP 1). An empty entry, on which the released code raises, stays empty.
    """
    if not entry:
        return entry
    always = spacing == "always"
    before = " " if always or not is_isolating(entry[0]) else ""
    after = " " if always or not is_isolating(entry[-1]) else ""
    return f"{before}{entry}{after}"


def _fill(table: np.ndarray, ranges: tuple[tuple[int, int], ...], value: int) -> None:
    for first, last in ranges:
        table[first : last + 1] = value


@lru_cache(maxsize=2)
def text_classes(mode: Mode) -> np.ndarray:
    """Class of every code point in a text, uint8 [0x110000].

    Bytes that are no UTF-8 have no code point; they take the class of U+D800, as if decoded with
    ``surrogateescape``: a token of its own in ``repaired``, part of a run in ``official``.
    """
    if mode == "repaired":
        table = np.full(CODE_POINTS, SINGLE, np.uint8)
        for point in range(CODE_POINTS):
            category = unicodedata.category(chr(point))
            if category[0] in "LM" or category == "Nd":
                table[point] = RUN
            elif chr(point).isspace():
                table[point] = SPACE
        singles = np.zeros(CODE_POINTS, bool)
        for first, last in UNSPACED_RANGES:
            singles[first : last + 1] = True
        table[singles & (table == RUN)] = SINGLE
    else:
        table = np.full(CODE_POINTS, RUN, np.uint8)
        _fill(table, ISOLATING_RANGES, SINGLE)
        for char in ISOLATING_PUNCTUATION:
            table[ord(char)] = SINGLE
        for char in WRAPPED_CHARACTERS:
            table[ord(char)] = WRAPPED
        for char in " " + SPACED_CHARACTERS:
            table[ord(char)] = SPACE
    table.flags.writeable = False
    return table


def entry_classes(mode: Mode) -> np.ndarray:
    """Class of every code point in an entry, uint8 [0x110000].

    The released code changes no character of an entry, so in ``official`` a punctuation mark is
    plain and only U+0020 is a space: such entries then never match (9.2, defect 6).
    """
    table = text_classes(mode).copy()
    if mode == "official":
        table[table == WRAPPED] = SINGLE
        for char in SPACED_CHARACTERS:
            table[ord(char)] = RUN
    return table


@lru_cache(maxsize=4)
def paged(mode: Mode, of: Literal["text", "entry"]) -> tuple[np.ndarray, np.ndarray]:
    """A class table as (where each page starts int32 [4352], distinct pages uint8 [n * 256])."""
    table = text_classes(mode) if of == "text" else entry_classes(mode)
    pages, numbers = np.unique(table.reshape(-1, PAGE), axis=0, return_inverse=True)
    return (PAGE * numbers.reshape(-1)).astype(np.int32), np.ascontiguousarray(pages.reshape(-1))
