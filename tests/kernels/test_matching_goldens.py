"""Matching, worked examples of the MetaCLIP 2 spec: sections 9.2 (defects 6-8) and 10."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curation.metaclip2 import reference
from kernels.matching.classes import Mode, Spacing
from tests.kernels.matching import automaton, split


def names(
    tmp_path: Path, entries: list[str], text: str, mode: Mode, spacing: Spacing = "isolating"
) -> list[str]:
    """The entries that the kernel finds in a text; the plain reference must find the same."""
    found = split(automaton(tmp_path, entries, mode, spacing).match(pa.array([text])), [text])
    assert found == reference.match([text], entries, mode, spacing)
    return [entries[i] for i in found[0]]


@pytest.mark.spec("metaclip2", 10)
@pytest.mark.parametrize("mode", ["repaired", "official"])
def test_each_entry_once_overlaps_and_nesting(tmp_path: Path, mode: Mode) -> None:
    entries = ["dog", "new", "york", "new york", "york city", "new york city", "city hall"]
    assert names(tmp_path, entries, "dog dog", mode) == ["dog"]
    assert names(tmp_path, entries, "in new york city", mode) == [
        "new", "york", "new york", "york city", "new york city",
    ]  # fmt: skip


@pytest.mark.spec("metaclip2", 11)
@pytest.mark.parametrize("mode", ["repaired", "official"])
def test_whole_words_and_case(tmp_path: Path, mode: Mode) -> None:
    entries = ["cat", "the", "The", "кот", "قط", "고양이"]
    assert names(tmp_path, entries, "concatenate", mode) == []
    assert names(tmp_path, entries, "The cat", mode) == ["cat", "The"]
    assert names(tmp_path, entries, "the bobcat", mode) == ["the"]
    assert names(tmp_path, entries, "коты кот", mode) == ["кот"]
    assert names(tmp_path, entries, "котик", mode) == []
    assert names(tmp_path, entries, "고양이가", mode) == []
    assert names(tmp_path, entries, "이 고양이", mode) == ["고양이"]


@pytest.mark.spec("metaclip2", 12)
@pytest.mark.parametrize("mode", ["repaired", "official"])
def test_raw_substrings_in_unspaced_scripts(tmp_path: Path, mode: Mode) -> None:
    entries = ["แม", "犬", "แมว", "ၾက", "ខ្មែ", "བོད"]
    assert names(tmp_path, entries, "แมว", mode) == ["แม", "แมว"]
    assert names(tmp_path, entries, "（犬）", mode) == ["犬"]
    assert names(tmp_path, entries, "a犬b ខ្មែរ བོད་", mode) == ["犬", "ខ្មែ", "བོད"]


OFFICIAL_MISSES = [
    ("St. Louis", "in St. Louis today"),
    ("U.S.A.", "the U.S.A. flag"),
    (".NET", "with .NET inside"),
    ("カメラ", "このカメラは"),
    ("東京タワー", "東京タワーの夜景"),
    ("dog", "(dog)"),
    ("cat", '"cat"'),
    ("dog", "dog-cat"),
    ("cat", "dog-cat"),
    ("dog", "dog/cat"),
    ("new york", "new  york"),
]


@pytest.mark.spec("metaclip2", 13)
@pytest.mark.parametrize(("entry", "text"), OFFICIAL_MISSES)
def test_the_released_codes_defects_and_their_repair(tmp_path: Path, entry: str, text: str) -> None:
    assert names(tmp_path, [entry], text, "official") == []
    assert names(tmp_path, [entry], text, "repaired") == [entry]


@pytest.mark.spec("metaclip2", 13)
@pytest.mark.parametrize(
    ("entry", "text", "official", "repaired"),
    [
        ("カメラ", "安い カメラ です", True, True),
        ("new york", "new, york", False, False),
        ("dog", "dog, cat", True, True),
        ("dog", "a\tdog\ncat", True, True),
        ("a b", "a\u00a0b", False, True),
        (",", "a, b", True, True),
        (", b", "a, b", False, True),
        ("12", "2021-04-12", False, True),
        ("12", "12", True, True),
        ("C++", "in C++, now", True, True),
        ("c#", "c#m", True, True),
        ("e", "e\u0301", False, False),
        ("犬", "犬\ufe00", True, True),
    ],
)
def test_both_modes(tmp_path: Path, entry: str, text: str, official: bool, repaired: bool) -> None:
    assert bool(names(tmp_path, [entry], text, "official")) is official
    assert bool(names(tmp_path, [entry], text, "repaired")) is repaired


@pytest.mark.spec("metaclip2", 13)
def test_metaclip_1_spaces_every_entry(tmp_path: Path) -> None:
    entries = ["犬", "dog", "#1"]
    assert names(tmp_path, entries, "黒犬 #1!", "official", "isolating") == ["犬", "#1"]
    assert names(tmp_path, entries, "黒犬 #1!", "official", "always") == ["#1"]
    assert names(tmp_path, entries, "黒 犬 dog", "official", "always") == ["犬", "dog"]


@pytest.mark.parametrize(
    ("entry", "text", "found"),
    [
        ("St. Louis", "St Louis", False),
        ("St. Louis", "St. \n Louis", True),
        ("St. Louis", "St.Louis", False),
        ("dog", "hotdog", False),
        ("dog", "dog2", False),
        ("dog", "dog_2", True),
        ("dog's", "the dog's tail", True),
        ("dog", "the dog's tail", True),
        ("s tail", "the dog's tail", True),
        (" dog ", "dog", True),
        ("hot  dog", "a hot dog", True),
        ("写真", "新しい写真です", True),
        ("写真a", "写真ab", False),
        ("ラー", "カメラー", True),
        ("ｶﾒﾗ", "新ｶﾒﾗﾃﾞｽ", True),
        ("々", "時々", True),
        ("नमस", "नमस्ते", False),
        ("नमस्ते", "नमस्ते।", True),
        ("می", "می\u200cخواهم", True),
        ("🚀", "a👩‍🚀b", True),
        ("\x00", "a\x00b", True),
        ("a", "\x00a\x00", True),
    ],
)
def test_repaired_rules(tmp_path: Path, entry: str, text: str, found: bool) -> None:
    assert bool(names(tmp_path, [entry], text, "repaired")) is found


@pytest.mark.parametrize("mode", ["repaired", "official"])
def test_blank_entries_and_texts_match_nothing(tmp_path: Path, mode: Mode) -> None:
    entries = ["", " ", "\t", "dog"]
    for text in ("", " ", "  \n ", "\u3000"):
        assert "dog" not in names(tmp_path, entries, text, mode)
        assert "" not in names(tmp_path, entries, text, mode)


def test_official_keeps_spaces_inside_and_beside_entries(tmp_path: Path) -> None:
    entries = ["a  b", " a", "a ", "a", "a ,  b", "  犬"]
    assert names(tmp_path, entries, "a  b", "official") == ["a  b", "a ", "a"]
    assert names(tmp_path, entries, "x  a", "official") == [" a", "a"]
    assert names(tmp_path, entries, "a, b", "official") == ["a", "a ,  b"]
    assert names(tmp_path, entries, ".  犬", "official") == ["  犬"]
