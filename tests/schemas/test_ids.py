"""Ids, the randomness derived from them, and order-free sums."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids

MASK = (1 << 64) - 1


def splitmix(x: int) -> int:
    """splitmix64's finaliser in plain integers (Steele, Lea, Flood 2014)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def plain_uniform(seed: int, epoch: int, value: bytes, salt: int) -> float:
    golden, state = 0x9E3779B97F4A7C15, 0
    low, high = (int.from_bytes(value[i : i + 8], "little") for i in (0, 8))
    for word in (seed & MASK, epoch, salt, low, high):
        state = splitmix(((state ^ word) + golden) & MASK)
    return (state >> 11) / 2**53


def test_id128_is_blake2b_of_length_prefixed_parts() -> None:
    raw = (2).to_bytes(8, "little") + b"ab" + (1).to_bytes(8, "little") + b"c"
    assert ids.id128(b"ab", b"c") == hashlib.blake2b(raw, digest_size=16).digest()
    assert ids.id128(b"a", b"bc") != ids.id128(b"ab", b"c") != ids.id128(b"abc")


def test_ids_are_pinned() -> None:
    """Published datasets hold these values: they may never change."""
    image = ids.image_id(url="https://example.org/a.jpg")
    assert image.hex() == hashlib.blake2b(
        b"\x09" + bytes(7) + b"image:url" + b"\x19" + bytes(7) + b"https://example.org/a.jpg",
        digest_size=16,
    ).hexdigest()  # fmt: skip
    assert ids.pair_id(image, "é") == ids.id128(b"pair", image, "é".encode())


def test_image_ids_of_different_kinds_differ() -> None:
    digest = hashlib.sha256(b"x").digest()
    values = {
        ids.image_id(url=digest.hex()),
        ids.image_id(sha256=digest),
        ids.image_id(key=digest),
        ids.image_id(key=digest.hex()),
    }
    assert len(values) == 4
    with pytest.raises(ValueError, match="exactly one"):
        ids.image_id(url="a", key="b")


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=20)), max_size=20))
def test_vectorised_ids_equal_plain_ones(rows: list[tuple[str, str]]) -> None:
    urls = pa.array([u for u, _ in rows], pa.string())
    images = ids.image_ids_of_urls(urls)
    assert images.to_pylist() == [ids.image_id(url=u) for u, _ in rows]
    texts = pa.chunked_array([pa.array([t for _, t in rows], pa.large_string())])
    pairs = ids.pair_ids(images, texts)
    assert pairs.type == ids.ID_TYPE
    assert pairs.to_pylist() == [ids.pair_id(ids.image_id(url=u), t) for u, t in rows]


def test_image_ids_keep_nulls() -> None:
    assert ids.image_ids_of_urls(pa.array([None, "u"])).to_pylist() == [None, ids.image_id(url="u")]


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**40),
    st.integers(0, 9),
    st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=8),
)
def test_uniform_equals_plain_integers(
    seed: int, epoch: int, salt: int, values: list[bytes]
) -> None:
    found = ids.uniform(seed, epoch, ids.id_array(values), salt)
    assert found.tolist() == [plain_uniform(seed, epoch, v, salt) for v in values]


def test_uniform_ignores_slicing_and_order() -> None:
    array = ids.id_array(ids.id128(bytes([i])) for i in range(100))
    whole = ids.uniform(1, 2, array, 3)
    assert (ids.uniform(1, 2, array.slice(37, 20), 3) == whole[37:57]).all()
    chunked = pa.chunked_array([array.slice(50), array.slice(0, 50)])
    assert (ids.uniform(1, 2, chunked, 3) == np.concatenate([whole[50:], whole[:50]])).all()


def test_uniform_is_uniform_and_independent() -> None:
    """Kolmogorov-Smirnov against U(0, 1), and correlation over seeds, epochs and salts."""
    n = 100_000
    words = np.arange(2 * n, dtype="<u8").reshape(n, 2)  # the worst ids: counters
    array = pa.FixedSizeBinaryArray.from_buffers(ids.ID_TYPE, n, [None, pa.py_buffer(words)])
    base = ids.uniform(0, 0, array, 1)
    for values in (base, ids.uniform(1, 0, array, 1)):
        gap = np.abs(np.sort(values) - (np.arange(n) + 0.5) / n).max()
        assert gap < 1.95 / np.sqrt(n)  # 99.9 % of uniform samples
    for other in ((1, 0, 1), (0, 1, 1), (0, 0, 2)):
        r = np.corrcoef(base, ids.uniform(other[0], other[1], array, other[2]))[0, 1]
        assert abs(r) < 4 / np.sqrt(n)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=30), st.randoms())
def test_id_sum_ignores_order_and_adds_up(values: list[bytes], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole = ids.id_sum(ids.id_array(values))
    assert whole == ids.id_sum(ids.id_array(shuffled))
    parts = ids.id_sum(ids.id_array(values[:7])) + ids.id_sum(ids.id_array(values[7:]))
    assert whole == parts % (1 << 128)


def test_id_sum_sees_lost_doubled_and_exchanged_ids() -> None:
    """Ids in patterns whose plain sum or xor would not change."""
    a, b = bytes(16), bytes(15) + b"\x01"
    c, d = bytes([0] * 15 + [2]), bytes([0] * 15 + [3])  # a + d == b + c, a ^ d == b ^ c
    sums = [
        ids.id_sum(ids.id_array(v))
        for v in ([a, d], [b, c], [a, a, d], [d], [a], [], [a, d, b, b], [a, d, c, c])
    ]
    assert len(set(sums)) == len(sums)
    assert all(0 <= s < 1 << 128 for s in sums)
    # Words must not be exchangeable between their halves.
    assert ids.id_sum(ids.id_array([b[8:] + b[:8]])) != ids.id_sum(ids.id_array([b]))


def test_mixing_for_sums_is_a_permutation() -> None:
    """No two of many ids collide in their single sums (a collapse of the mix would show)."""
    words = np.arange(200_000, dtype="<u8").reshape(-1, 2)
    singles = {ids.id_sum(words[i : i + 1]) for i in range(2000)}
    assert len(singles) == 2000
    total = sum(singles) % (1 << 128)
    assert total == ids.id_sum(words[:2000])


def test_null_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        ids.id_sum(pa.array([None], ids.ID_TYPE))
