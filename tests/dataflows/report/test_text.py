from __future__ import annotations

import html
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.page import text
from tests.dataflows.report.hostile import ARABIC_BRAND, LONG_WORD, SHOWN

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(SHOWN)
LABEL = re.compile(r'<span class="unseen" dir="ltr">(U\+[0-9A-F]{4,6})</span>')
CUT = re.compile(r'<span class="cut" dir="ltr">… [0-9,]+ more characters</span>')
ACTS_UNSEEN = (
    "\x00\x07\x1b\x7f\x85\x9b\xad\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2028\u2029\u2066\u2067\u2068\u2069\ufeff\U000e0041"
)


@given(TEXTS)
def test_the_page_shows_the_text_and_nothing_but_text(raw: str) -> None:
    shown = str(text.page(raw, 1000))
    bare = CUT.sub("", LABEL.sub("", shown))
    assert "<" not in bare and ">" not in bare and '"' not in bare and "'" not in bare
    spelled = LABEL.sub(lambda label: chr(int(label[1][2:], 16)), CUT.sub("", shown))
    if len(raw) <= 1000 and not text._MARK_TOWER.search(raw):
        assert html.unescape(spelled) == raw


@given(TEXTS)
def test_no_character_acts_unseen_anywhere(raw: str) -> None:
    for shown in (str(text.page(raw, 90)), text.attribute(raw, 90), text.terminal(raw, 90)):
        assert not set(shown) & set(ACTS_UNSEEN)
        assert not any(unicodedata.category(char) in ("Cc", "Co") for char in shown)


@pytest.mark.parametrize("char", ACTS_UNSEEN)
def test_each_is_shown_by_its_code_point(char: str) -> None:
    raw = f"a{char}b"
    assert text.page(raw) == f'a<span class="unseen" dir="ltr">U+{ord(char):04X}</span>b'
    assert text.attribute(raw) == f"a[U+{ord(char):04X}]b"
    assert f"{ord(char):x}" in text.terminal(raw)
    assert char not in text.terminal(raw)


def test_what_scripts_need_stays() -> None:
    persian, khmer, emoji, han = "می\u200cخواهم", "កា\u200bរ", "👩\u200d👩\u200d👧", "葛\U000e0100"
    for raw in (persian, khmer, emoji, han):
        assert str(text.page(raw)) == raw


def test_long_texts_are_cut_with_their_length_said() -> None:
    shown = str(text.page(LONG_WORD, 100))
    assert f"{len(LONG_WORD) - 100:,} more characters" in shown
    assert len(shown) < 250
    assert len(text.terminal(LONG_WORD, 100)) < 150
    assert text.cut("e\u0301" * 50, 51) == ("e\u0301" * 25, 50)  # not between a letter and its mark


@given(TEXTS)
def test_a_document_is_its_lines(raw: str) -> None:
    lines = [line for line in re.split(r"[\r\n]+", f"{raw}\r\n\n \nend") if line.strip()]
    shown = str(text.document(f"{raw}\r\n\n \nend", 10**6))
    assert shown == "<br>".join(str(text.page(line.replace("\t", " "), 10**6)) for line in lines)


def test_a_long_document_says_how_much_is_not_shown() -> None:
    assert str(text.document("ab\ncd\nef", 4)) == (
        'ab<br>c<span class="cut" dir="ltr">… 4 more characters</span>'
    )


def test_a_tower_of_marks_is_lowered() -> None:
    raw = "z" + "\u0301" * 40 + "a"
    assert str(text.page(raw)).count("\u0301") == 4
    assert str(text.page("ế\u0302\u0301")) == "ế\u0302\u0301"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("قطة سوداء", "rtl"),
        (ARABIC_BRAND, "rtl"),
        ("Nike حذاء", "rtl"),
        ("Microsoft Windows حذاء", "ltr"),
        ("חתול", "rtl"),
        ("猫", "ltr"),
        ("cat", "ltr"),
        ("123 !", "auto"),
        ("", "auto"),
    ],
)
def test_direction_follows_most_letters(raw: str, expected: str) -> None:
    assert text.direction(raw) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [("ar", "ar"), ("zh", "zh"), ("zh-Hant", "zh-Hant"), ("other", "und"), ("", "und"),
     ('en" onclick="x', "und"), ("<b>", "und"), ("all", "und"), ("N/A", "und")],
)  # fmt: skip
def test_language_tags_are_tags(label: str, expected: str) -> None:
    assert text.language_tag(label) == expected
