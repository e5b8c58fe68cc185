"""What a word is, in plain Python: the definition that the compiled code reads as tables.

A text is lower-cased, accents are dropped, white space separates words, and characters that are no
letter, mark or number are dropped ("Don't stop--now" is dont, stopnow): the normalisation of GPT-3's
contamination study (2005.14165, appendix C) and, but for numbers, which stay as they are here, of
FineWeb's deduplication. Every character of a script that is written without spaces
(`kernels.matching.classes.UNSPACED_RANGES`: Han, Kana, Thai, Khmer, ...) is a word by itself.

An n-gram is the shortest run of words from one word on whose weights come to 2n: a word weighs 2, a
character of an unspaced script 1, because a word of Chinese, Japanese or Thai has two characters or
more. So it is n words of English and 2n characters of Chinese, and mixed text needs no language.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np

from kernels.matching.classes import CODE_POINTS, PAGE, UNSPACED_RANGES

UNICODE_VERSION = unicodedata.unidata_version
"""What counts as a letter depends on it; it belongs into what a result is keyed by."""

ASSIGNED = 0x34000
"""No letter, mark, number or space has a code point from here on."""
ACCENTS = (
    (0x300, 0x36F),
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0xFE00, 0xFE0F),
    (0xFE20, 0xFE2F),
    (0xE0100, 0xE01EF),
)
"""Combining marks and variation selectors that belong to no script; the vowel signs of Hindi or
Arabic are not among them."""

LENGTH_SHIFT, UNSPACED, SPACE = 32, 1 << 40, 1 << 41


def fold(char: str) -> str:
    """A character as it counts: one character, a space for white space, or "" if it is dropped."""
    if char.isspace():
        return " "
    if unicodedata.category(char)[0] not in "LMN":
        return ""
    if _in(ord(char), ACCENTS):
        return ""
    if unicodedata.decomposition(char):
        plain = [c for c in unicodedata.normalize("NFKD", char) if not _in(ord(c), ACCENTS)]
        char = plain[0] if len(plain) == 1 else char
    return char.lower()[:1]


def is_unspaced(char: str) -> bool:
    """Whether a character belongs to a script written without spaces."""
    return _in(ord(char), UNSPACED_RANGES)


def _in(point: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return point >= 0x300 and any(a <= point <= b for a, b in ranges)


def words_of(text: str) -> list[str]:
    """The words of a text, normalised."""
    found: list[str] = []
    for piece in "".join(map(fold, text)).split(" "):
        word = ""
        for char in piece:
            if is_unspaced(char):
                found += [word, char]
                word = ""
            else:
                word += char
        found.append(word)
    return [word for word in found if word]


def weight(word: str) -> int:
    """2 for a word, 1 for a character of an unspaced script."""
    return 1 if len(word) == 1 and is_unspaced(word) else 2


def grams(words: Sequence[str], n: int) -> list[tuple[int, int]]:
    """[start, stop) of every n-gram among the words of a text; none if their weight is below 2n."""
    found = []
    stop = total = 0
    for start in range(len(words)):
        while stop < len(words) and total < 2 * n:
            total += weight(words[stop])
            stop += 1
        if total < 2 * n:
            break
        found.append((start, stop))
        total -= weight(words[start])
    return found


@cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """(first place of each page int32 [4352], entries uint64) of all characters, in pages of 256.

    An entry has the UTF-8 bytes of the folded character in its low 32 bits, their number from bit
    `LENGTH_SHIFT` on, and the flags `UNSPACED` and `SPACE`; it is 0 if the character is dropped.
    """
    starts = np.zeros(CODE_POINTS // PAGE, np.int32)
    pages = [np.zeros(PAGE, np.uint64)]
    for number in range(ASSIGNED // PAGE):
        page = np.array([_entry(chr(number * PAGE + i)) for i in range(PAGE)], np.uint64)
        if page.any():
            starts[number] = PAGE * len(pages)
            pages.append(page)
    return starts, np.concatenate(pages)


def _entry(char: str) -> int:
    folded = fold(char) if not 0xD800 <= ord(char) <= 0xDFFF else ""
    if folded == " ":
        return SPACE
    raw = folded.encode()
    flag = UNSPACED if folded and is_unspaced(folded) else 0
    return int.from_bytes(raw, "little") | len(raw) << LENGTH_SHIFT | flag
