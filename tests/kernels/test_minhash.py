"""Words, n-grams and signatures: the compiled code against the definition, and that against the field's.

`reference` is the project's own; what it is compared with in turn (sets of n-grams, MinHash with
permutations drawn one by one, the S-curve) shares nothing with it.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import minhash
from kernels.minhash import reference, words
from schemas.errors import InputError, UsageError
from tests.support import ROOT

ALPHABET = "aB cZ9 ,.-\n\téÉüßİſﬁŁ中文日本テストก็ไทยहिन्दी한글ΑΣςЯ́\u200b\u3000\u0000😀𝐀𠀀Ａ１"
TEXTS = st.lists(st.text(ALPHABET, max_size=80) | st.text(max_size=40), max_size=6)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(1, 6))
@example(["x" * 7 + "é" * 5 + "y" * 20, "a" * 8, "a" * 9, "", "日" * 9 + "a b c"], 3)
def test_compiled_equals_the_definition(texts: list[str], n: int) -> None:
    hashes, offsets = minhash.shingles(pa.array(texts, pa.string()), n)
    found = [hashes[a:b].tolist() for a, b in pairwise(offsets)]
    assert found == [reference.shingles(text, n) for text in texts]
    signatures = minhash.signatures(pa.array(texts, pa.string()), n, slots=24, seed=n)
    assert (signatures == minhash.sketch(hashes, offsets, slots=24, seed=n)).all()
    assert signatures.tolist() == [reference.sketch(row, 24, n) for row in found]
    bands = minhash.band_hashes(signatures, 4)
    assert bands.tolist() == [reference.band_hashes(row, 4) for row in signatures.tolist()]


def test_every_character_is_folded_as_the_definition_says() -> None:
    points = [p for p in range(0x110000) if not 0xD800 <= p <= 0xDFFF]
    texts = ["".join(map(chr, points[i : i + 64])) for i in range(0, len(points), 64)]
    hashes, _ = minhash.shingles(pa.array(texts, pa.large_string()), 1)
    known = [h for text in texts for h in reference.shingles(text, 1)]
    assert len(known) > 10_000
    assert hashes.tolist() == known


def test_words_are_those_of_the_rule() -> None:
    text = "Don't STOP--now!  Café cafe\u0301 Ａ１\u3000x = 3;\n(e.g.) हिन्दी 東京 is 大きい ภาษา"
    assert words.words_of(text) == [
        *("dont", "stopnow", "cafe", "cafe", "a1", "x", "3", "eg", "हिन्दी"),
        *("東", "京", "is", "大", "き", "い", "ภ", "า", "ษ", "า"),
    ]


def test_an_ngram_of_an_unspaced_script_is_2n_characters() -> None:
    assert words.grams(["a", "b", "c", "d", "e", "f"], 5) == [(0, 5), (1, 6)]
    assert words.grams(list("東京都千代田区"), 3) == [(0, 6), (1, 7)]
    # A word is worth two characters; what is begun is finished.
    assert words.grams(["東", "is", "京", "a"], 2) == [(0, 3), (1, 4)]
    assert words.grams(["東", "is", "a", "京"], 2) == [(0, 3), (1, 3)]
    assert words.grams(["a", "b"], 3) == []


def test_layouts_of_a_column_make_no_difference() -> None:
    texts = ["one two three four five six", None, "été 東京", "", "seven eight"]
    wanted = minhash.signatures(pa.array([t or "" for t in texts]), 2)
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        column = pa.array([None if t is None else t.encode() for t in texts], pa.binary()).cast(
            kind
        )
        assert (minhash.signatures(column, 2) == wanted).all()
        assert (minhash.signatures(column.slice(2, 2), 2) == wanted[2:4]).all()
        chunked = pa.chunked_array([column.slice(0, 2), column.slice(2, 0), column.slice(2)])
        assert (minhash.signatures(chunked, 2) == wanted).all()
        hashes, offsets = minhash.shingles(chunked, 2)
        assert offsets.tolist() == minhash.shingles(column, 2)[1].tolist()
        assert len(hashes) == offsets[-1]
    assert minhash.signatures(pa.chunked_array([], pa.string())).shape == (0, 112)


def test_bytes_that_are_no_text_are_dropped() -> None:
    raw = [
        b"ab\xff\xfecd ef",
        b"\xe6\x9d ab",
        b"ab \xe6\x9d",
        b"ab\xf8\x80",
        b"\xf7\xbf\xbf\xbf ab",
    ]
    hashes, offsets = minhash.shingles(pa.array(raw, pa.binary()), 1)
    plain = ["abcd ef", "ab", "ab", "ab", "ab"]
    known = [reference.shingles(text, 1) for text in plain]
    assert [hashes[a:b].tolist() for a, b in pairwise(offsets)] == known


def sets(rng: np.random.Generator, size: int, similarity: float) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of `size` hashes each with about this Jaccard similarity."""
    common = round(2 * size * similarity / (1 + similarity))
    drawn = rng.integers(0, 2**64, 2 * size - common, dtype=np.uint64)
    return drawn[:size], drawn[size - common :]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return len(np.intersect1d(a, b)) / len(np.union1d(a, b))


def permuted(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, slots: int = 112) -> float:
    """MinHash by its definition: the share of random orders of the union with a common first."""
    union = np.union1d(a, b)
    common = np.isin(union, a) & np.isin(union, b)
    return float(np.mean([common[rng.integers(len(union))] for _ in range(slots)]))


@pytest.mark.parametrize("size", [3, 20, 150, 2000])
def test_the_estimate_is_unbiased_and_as_exact_as_minhash(size: int) -> None:
    rng = np.random.default_rng(size)
    ours, plain = [], []
    for similarity in np.linspace(0.05, 0.95, 19):
        pairs = [sets(rng, size, similarity) for _ in range(40)]
        flat = np.concatenate([half for pair in pairs for half in pair])
        found = minhash.sketch(flat, np.arange(81) * size, seed=int(1000 * similarity))
        share = (found[::2] == found[1::2]).mean(axis=1)
        truth = np.array([jaccard(a, b) for a, b in pairs])
        ours.append(share - truth)
        plain.append(np.array([permuted(a, b, rng) for a, b in pairs]) - truth)
    errors, known = np.concatenate(ours), np.concatenate(plain)
    # 760 pairs: the ratio of two root mean squares varies by 4 %.
    assert np.sqrt((errors**2).mean()) < 1.1 * np.sqrt((known**2).mean())
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(len(errors))


@pytest.mark.parametrize("size", [40, 400])
def test_bands_find_pairs_as_the_s_curve_says(size: int) -> None:
    rng = np.random.default_rng(7)
    for similarity in (0.5, 0.65, 0.72, 0.8, 0.9):
        pairs = [sets(rng, size, similarity) for _ in range(2000)]
        flat = np.concatenate([half for pair in pairs for half in pair])
        bands = minhash.band_hashes(minhash.sketch(flat, np.arange(4001) * size))
        found = (bands[::2] == bands[1::2]).any(axis=1).mean()
        truth = np.array([jaccard(a, b) for a, b in pairs])
        curve = (1 - (1 - truth**8) ** 14).mean()
        assert abs(found - curve) < 0.03, (similarity, found, curve)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=600), st.randoms())
def test_a_signature_is_of_a_set(hashes: list[int], random: object) -> None:
    again = hashes + hashes[: len(hashes) // 2]
    random.shuffle(again)  # type: ignore[attr-defined]
    flat = np.array(hashes + again, np.uint64)
    a, b = minhash.sketch(flat, np.array([0, len(hashes), len(flat)]))
    assert (a == b).all()
    # Of a union each slot is one of the parts' (the smaller): signatures of shards can be merged.
    halves = minhash.sketch(flat, np.array([0, len(hashes) // 2, len(hashes)]))
    assert (np.minimum(*halves) == a).all()


def test_without_words_all_slots_are_empty() -> None:
    found = minhash.signatures(pa.array(["", " \n", "...!", None, "a"], pa.string()))
    assert (found == minhash.EMPTY).all(axis=1).tolist() == [True, True, True, True, False]


def test_seeds_and_bands_differ() -> None:
    text = pa.array(["some words to be hashed in two ways"])
    one, two = minhash.signatures(text, seed=1), minhash.signatures(text, seed=2)
    assert (one != two).mean() > 0.9
    same = np.zeros((1, 112), np.uint32)
    assert len(set(minhash.band_hashes(same)[0].tolist())) == 14


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(InputError, match="type int64"):
        minhash.signatures(pa.array([1]))
    with pytest.raises(UsageError, match="n-grams of 65 words"):
        minhash.shingles(pa.array(["a"]), 65)
    with pytest.raises(UsageError, match="signatures of 0 slots"):
        minhash.signatures(pa.array(["a"]), slots=0)
    with pytest.raises(UsageError, match="112 slots do not make 15 bands"):
        minhash.band_hashes(np.zeros((1, 112), np.uint32), 15)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_components_are_those_of_a_graph_search(data: st.DataObject) -> None:
    nodes = data.draw(st.integers(1, 30))
    node = st.integers(0, nodes - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=40))
    near: dict[int, set[int]] = {i: {i} for i in range(nodes)}
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    smallest = {}
    for root in range(nodes):
        todo = [root]
        while todo:
            at = todo.pop()
            if at not in smallest:
                smallest[at] = root
                todo += near[at]
    first, second = np.array([*edges, (0, 0)], np.int64).T
    found = minhash.components(first, second, nodes)
    assert found.tolist() == [smallest[i] for i in range(nodes)]


def test_importing_loads_no_compiler() -> None:
    code = "import kernels.minhash, sys; assert not {'numba', 'llvmlite'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
