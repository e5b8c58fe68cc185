"""N-grams with places, and the scan for those of an index, against a search in plain Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.minhash import finding, reference, words_of
from kernels.minhash.words import grams, weight

WORDS = st.sampled_from(["a", "b", "c", "Don't", "été", "日", "本", "x1", "--", "word" * 5])
TEXTS = st.lists(st.lists(WORDS, max_size=14).map(" ".join), max_size=5)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_places_are_those_of_the_words(texts: list[str], n: int) -> None:
    found = finding.gram_places(pa.array(texts, pa.string()), n)
    for text, (begin, end), count in zip(texts, pairwise(found.offsets), found.counts, strict=True):
        words = words_of(text)
        spans = grams(words, n)
        assert count == (len(words) if words and not spans else 0)
        spans = spans or ([(0, len(words))] if words else [])
        raw = text.encode()
        pieces = [words_of(raw[a:b].decode()) for a, b in found.places[begin:end]]
        assert pieces == [words[a:b] for a, b in spans]
        assert found.hashes[begin:end].tolist() == reference.shingles(text, n)


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS, st.integers(2, 4), st.integers(1, 4))
def test_hits_are_those_of_a_plain_search(
    known: list[str], texts: list[str], n: int, least: int
) -> None:
    least = min(n, least)
    entries: list[set[tuple[str, ...]]] = [set(), set(), set()]
    for text in known:
        words = words_of(text)
        total = sum(map(weight, words))
        if total >= 2 * n:
            entries[0] |= {tuple(words[a:b]) for a, b in grams(words, n)}
        elif words:
            entries[1 if total >= 2 * least else 2].add(tuple(words))
    keyed = [[(reference.gram_hash(e), e) for e in kind] for kind in entries]
    keyed[1] = [(reference.gram_hash(e[: grams(e, least)[0][1]]), e) for _, e in keyed[1]]
    ordered = [sorted(kind) for kind in keyed]
    lookups = [finding.Lookup(np.array([k for k, _ in kind], np.uint64)) for kind in ordered]
    counts = np.array([len(e) for _, e in ordered[1]], np.int64)
    hashes = np.array([reference.gram_hash(e) for _, e in ordered[1]], np.uint64)
    column = pa.chunked_array([pa.array(texts[:2], pa.string()), pa.array(texts[2:], pa.string())])
    hits = finding.overlaps(column, n, lookups[0], least, lookups[1], counts, hashes, lookups[2])
    found = sorted(
        (row, kind, ordered[kind][entry][1], tuple(words_of(texts[row].encode()[a:b].decode())))
        for row, kind, entry, a, b in hits.tolist()
    )
    wanted = []
    for row, text in enumerate(texts):
        words = tuple(words_of(text))
        for kind, group in enumerate(entries):
            for entry in group:
                starts = range(len(words) - len(entry) + 1) if kind < 2 else [0]
                held = [words[i : i + len(entry)] for i in starts]
                wanted += [(row, kind, entry, entry)] * (
                    held.count(entry) if kind < 2 else words == entry
                )
    assert found == sorted(wanted)


def test_room_for_hits_grows_within_a_row() -> None:
    text = " ".join(f"w{i % 7}" for i in range(20_000))
    words = words_of(text)
    keys = np.unique(np.array([reference.gram_hash(words[i : i + 2]) for i in range(7)], np.uint64))
    none = finding.Lookup(np.empty(0, np.uint64))
    hits = finding.overlaps(
        pa.array(["a b", text, "w0 w1"]), 2, finding.Lookup(keys), 1, none,
        np.empty(0, np.int64), np.empty(0, np.uint64), none,
    )  # fmt: skip
    assert np.bincount(hits[:, 0]).tolist() == [0, 19_999, 1]
    assert (np.diff(hits[hits[:, 0] == 1, 3]) > 0).all()


def test_a_lookup_finds_all_keys_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    keys = np.sort(rng.integers(0, 2**64, 5000, dtype=np.uint64))
    texts = pa.array([f"word{i}" for i in range(20_000)])
    own = finding.gram_places(texts, 1).hashes
    mixed = np.sort(np.concatenate([keys, own[::3]]))
    none = finding.Lookup(np.empty(0, np.uint64))
    hits = finding.overlaps(
        texts,
        1,
        finding.Lookup(mixed),
        1,
        none,
        np.empty(0, np.int64),
        np.empty(0, np.uint64),
        none,
    )
    assert hits[:, 0].tolist() == list(range(0, 20_000, 3))
    assert (mixed[hits[:, 2]] == own[::3]).all()
