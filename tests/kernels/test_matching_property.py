"""The matching kernel against the plain reference and against pyahocorasick, on random text."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ahocorasick
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.matching.classes import Mode, Spacing, space_entry, space_text
from tests.kernels.matching import SCRIPTS, automaton, compare, split, texts_and_entries

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
ANY = st.text(st.sampled_from("".join(SCRIPTS)), max_size=24)
DENSE = st.text(st.sampled_from("ab 犬メแ,."), max_size=40)
WILD = st.text(max_size=20)
MODES = [("repaired", "isolating"), ("official", "isolating"), ("official", "always")]


@pytest.mark.parametrize(("mode", "spacing"), MODES)
@given(st.lists(ANY | DENSE | WILD, max_size=12), st.lists(ANY | DENSE | WILD, max_size=12))
@SETTINGS
def test_equals_the_reference(
    mode: Mode, spacing: Spacing, texts: list[str], entries: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Pieces of the texts as entries, so that much is found.
        pieces = [t[i : i + 5] for t in texts for i in range(0, len(t), 3)]
        compare(Path(folder), entries + pieces, texts + entries, mode, spacing)


@pytest.mark.parametrize("mode", ["repaired", "official"])
@given(st.lists(st.binary(max_size=30), max_size=8), st.lists(DENSE, max_size=8))
@SETTINGS
def test_any_bytes(mode: Mode, texts: list[bytes], entries: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cut = [e.encode()[:-1] + t for e, t in zip(entries, texts, strict=False)]
        compare(Path(folder), [*entries, "a", "犬"], texts + cut, mode)


@pytest.mark.spec("metaclip2", 27)
@pytest.mark.parametrize(("mode", "spacing"), MODES)
def test_ten_thousand_texts_of_all_scripts(tmp_path: Path, mode: Mode, spacing: Spacing) -> None:
    texts, entries = texts_and_entries(seed=27, n_texts=10_000, n_entries=400)
    assert compare(tmp_path, entries, texts, mode, spacing) > 2_000


@pytest.mark.spec("metaclip2", 27)
@pytest.mark.parametrize("spacing", ["isolating", "always"])
def test_official_equals_pyahocorasick(tmp_path: Path, spacing: Spacing) -> None:
    texts, entries = texts_and_entries(seed=28, n_texts=20_000, n_entries=5_000)
    entries = [e for e in dict.fromkeys(entries) if e.strip(" ")]
    peer = ahocorasick.Automaton()
    for i, entry in enumerate(entries):
        peer.add_word(space_entry(entry, spacing), i)
    peer.make_automaton()
    expected = [sorted({i for _, i in peer.iter(space_text(text))}) for text in texts]
    found = automaton(tmp_path, entries, "official", spacing).match(pa.array(texts))
    assert split(found, texts) == expected
    assert sum(map(len, expected)) > 20_000


@pytest.mark.parametrize("mode", ["repaired", "official"])
def test_long_entries_with_common_beginnings(tmp_path: Path, mode: Mode) -> None:
    stems = ["a b", "a b c d e f", "犬犬犬犬", "犬犬犬犬犬犬犬犬犬犬", "antidisestablishment"]
    entries = [
        s[:n] + tail for s in stems for n in range(1, len(s) + 1) for tail in ("", " x", "y")
    ]
    texts = [e + f + " " + e for e in entries for f in ("", "y", " x", "犬")]
    assert compare(tmp_path, entries, texts, mode) > len(texts)
