"""Kinds of text arrays, long and hostile texts, threads."""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kernels.matching import Automaton
from kernels.matching.automaton import MAX_TEXT
from schemas.errors import InputError
from tests.kernels.matching import automaton, compare, split, texts_and_entries

ENTRIES = ["dog", "hot dog", "犬", "antidisestablishmentarianism", "dog's"]
TEXTS = ["a hot dog", None, "", "犬dog犬", "antidisestablishmentarianism", None, "dog's  dog"]
FOUND = [[0, 1], [], [], [0, 2], [3], [], [0, 4]]


@pytest.fixture
def matcher(tmp_path: Path) -> Automaton:
    return automaton(tmp_path, ENTRIES, "repaired")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_types_slices_and_nulls(matcher: Automaton, kind: pa.DataType) -> None:
    array = pa.array([t.encode() if t is not None else None for t in TEXTS], pa.binary()).cast(kind)
    assert split(matcher.match(array), TEXTS) == FOUND
    for start in range(len(TEXTS)):
        for length in range(len(TEXTS) - start):
            part = array.slice(start, length)
            assert split(matcher.match(part), part) == FOUND[start : start + length]


def test_chunks(matcher: Automaton) -> None:
    chunked = pa.chunked_array([TEXTS[:2], [], TEXTS[2:]], pa.string())
    assert split(matcher.match(chunked), TEXTS) == FOUND
    assert split(matcher.match(pa.chunked_array([], pa.string())), []) == []
    assert split(matcher.match(pa.nulls(3, pa.string())), [0, 0, 0]) == [[], [], []]


def test_a_null_hides_the_bytes_beneath_it(matcher: Automaton) -> None:
    bits = pa.py_buffer(bytes([0b101]))
    offsets = pa.py_buffer(np.array([0, 3, 6, 9], np.int32).tobytes())
    array = pa.Array.from_buffers(pa.string(), 3, [bits, offsets, pa.py_buffer(b"dogdogdog")])
    assert split(matcher.match(array), array) == [[0], [], [0]]


def test_the_last_bytes_of_a_tight_buffer(matcher: Automaton) -> None:
    for text in (b"dog", b"x" * 61 + b"dog", b"x" * 60 + b" dog", "x犬".encode()):
        offsets = pa.py_buffer(np.array([0, len(text)], np.int32).tobytes())
        array = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(text)])
        expected = [[]] if text == b"x" * 61 + b"dog" else [[0]] if b"dog" in text else [[2]]
        assert split(matcher.match(array), array) == expected


@pytest.mark.parametrize("kind", [pa.int64(), pa.string_view(), pa.list_(pa.string())])
def test_other_types_are_refused(matcher: Automaton, kind: pa.DataType) -> None:
    with pytest.raises(InputError, match=r"texts of type .* cast the column"):
        matcher.match(pa.nulls(2, kind))


@pytest.mark.parametrize("offsets", [[0, 4, 2], [0, 2, 99], [-1, 2, 3]])
def test_offsets_outside_the_buffer_are_refused(matcher: Automaton, offsets: list[int]) -> None:
    stored = np.array([0, 2, 4], np.int32)
    array = pa.Array.from_buffers(
        pa.binary(), 2, [None, pa.py_buffer(stored), pa.py_buffer(b"dogs")]
    )
    stored[:] = offsets  # Arrow checks the ends when an array is made, IPC files are not checked
    with pytest.raises(InputError, match="leave its buffer"):
        matcher.match(array)


def test_a_text_over_the_limit_is_refused(matcher: Automaton) -> None:
    array = pa.array(["dog", "x" * (MAX_TEXT + 1)])
    with pytest.raises(InputError, match=f"text 1 has {MAX_TEXT + 1} bytes; the limit is"):
        matcher.match(array)


@pytest.mark.parametrize("mode", ["repaired", "official"])
def test_texts_of_a_megabyte(tmp_path: Path, mode: str) -> None:
    matcher = automaton(tmp_path, [*ENTRIES, "a  b"], mode)
    texts = [
        "dog " * 250_000,
        "犬" * 350_000,
        "\x00" * 1_000_000,
        " " * 1_000_000,
        "x" * 999_000 + " hot dog",
        "., " * 333_000 + "dog",
        "é" * 500_000 + " dog",
    ]
    alone = [split(matcher.match(pa.array([t])), [t])[0] for t in texts]
    assert alone == [[0], [2], [], [], [0, 1], [0], [0]]
    together = pa.array([texts[0], "dog", *texts[1:], "hot dog"])
    assert split(matcher.match(together), together) == [alone[0], [0], *alone[1:], [0, 1]]


def test_hostile_repetition_stays_bounded(tmp_path: Path) -> None:
    """Every start follows every entry: the work is starts times the longest entry, no more."""
    entries = [" ".join(["a"] * n) for n in range(1, 129)]
    entries += ["犬" * n for n in range(1, 129)]
    matcher = automaton(tmp_path, entries, "repaired")
    texts = ["a " * 500_000, "犬" * 333_000]
    matcher.match(pa.array(["warm"]))
    start = time.process_time()
    found = split(matcher.match(pa.array(texts)), texts)
    assert time.process_time() - start < 20
    assert found == [list(range(128)), list(range(128, 256))]


def test_many_tiny_texts(tmp_path: Path) -> None:
    matcher = automaton(tmp_path, ["a", "b", "a b"], "repaired")
    texts = ["a", "", "b", "a b", "c"] * 5_000
    assert split(matcher.match(pa.array(texts)), texts) == [[0], [], [1], [0, 1, 2], []] * 5_000


def test_no_entries_at_all(tmp_path: Path) -> None:
    for mode in ("repaired", "official"):
        matcher = automaton(tmp_path, [], mode)
        assert matcher.size == 0
        assert split(matcher.match(pa.array(["dog", "犬"])), [0, 0]) == [[], []]


def test_threads_share_an_automaton(tmp_path: Path) -> None:
    texts, entries = texts_and_entries(seed=5, n_texts=4_000, n_entries=300)
    matcher = automaton(tmp_path, entries, "repaired")
    parts = [pa.array(texts[i : i + 400]) for i in range(0, 4_000, 400)]
    expected = [split(matcher.match(p), p) for p in parts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda p: split(matcher.match(p), p), parts * 5))
    assert found == expected * 5


def test_pickles_as_its_path(matcher: Automaton) -> None:
    raw = pickle.dumps(matcher)
    assert len(raw) < 500
    again = pickle.loads(raw)
    assert again.fingerprint == matcher.fingerprint
    assert split(again.match(pa.array(TEXTS)), TEXTS) == FOUND


def test_blocks_end_anywhere(tmp_path: Path) -> None:
    """Texts of sizes around the block's, so that blocks end at, before and behind each other."""
    from kernels.matching.state import BLOCK

    sizes = [BLOCK - 1, 1, BLOCK, 2, BLOCK + 1, 0, BLOCK // 2, BLOCK // 2 - 1, 3, 2 * BLOCK]
    texts = [("dog 犬 hot " * (n // 8 + 1)).encode()[:n] for n in sizes]
    assert compare(tmp_path, ENTRIES, texts, "repaired") > 10
    assert compare(tmp_path, ENTRIES, texts, "official") > 10
