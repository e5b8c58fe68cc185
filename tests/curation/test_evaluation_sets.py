"""Removal of evaluation sets: by URL, by exact hash, by perceptual hash."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.evaluation_sets import DEFAULT_MAX_BITS, EvaluationSets, canonical_urls
from curation.images import Decoder
from schemas.errors import InputError, UsageError


def table(**columns) -> pa.Table:
    kinds = {"url": pa.string(), "sha256": pa.binary(32), "phash": pa.uint64()}
    return pa.table({name: pa.array(v, kinds[name]) for name, v in columns.items()})


def test_urls_are_compared_without_scheme_fragment_and_case_of_the_host() -> None:
    urls = [
        "HTTPS://Example.COM/Cat.jpg?w=3#top",
        "http://example.com/Cat.jpg?w=3",
        "//example.com/x",
        "example.com",
        "a\nb.org/Q",
        None,
    ]
    assert canonical_urls(pa.array(urls)).to_pylist() == [
        "example.com/Cat.jpg?w=3",
        "example.com/Cat.jpg?w=3",
        "//example.com/x",
        "example.com",
        "a\nb.org/Q",
        None,
    ]
    held_out = EvaluationSets.of([table(url=["http://eval.org/A.png", None])])
    asked = ["https://EVAL.org/A.png#x", "http://eval.org/a.png", "http://eval.org/A.png?", None]
    assert held_out.find(table(url=asked)).url.tolist() == [True, False, False, False]


def test_exact_hashes() -> None:
    held_out = EvaluationSets.of([table(sha256=[b"a" * 32]), table(sha256=[b"b" * 32, None])])
    found = held_out.find(table(sha256=[b"b" * 32, None, b"c" * 32, b"a" * 32]))
    assert found.exact.tolist() == [True, False, False, True]
    assert found.hash.tolist() == found.exact.tolist()
    assert found.hashed.tolist() == [True, False, True, True]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=20),
    st.lists(st.tuples(st.integers(0, 19), st.sets(st.integers(0, 63), max_size=9)), max_size=20),
    st.integers(0, 15),
)
def test_near_hashes_equal_a_plain_loop(held: list[int], asked: list, bits: int) -> None:
    held_out = EvaluationSets.of([table(phash=held)], max_bits=bits)
    hashes = []
    for i, flips in asked:
        value = held[i % len(held)] if held else i
        for bit in flips:
            value ^= 1 << bit
        hashes.append(value)
    # Pictures without structure have few bits set and are not looked for.
    rich = [h for h in held if h.bit_count() >= 16]
    expected = [any((h ^ q).bit_count() <= bits for h in rich) for q in hashes]
    assert held_out.find(table(phash=hashes)).perceptual.tolist() == expected


def test_many_near_hashes_in_pieces() -> None:
    rng = np.random.default_rng(1)
    # All share one band, so every one is a candidate for every other.
    held = rng.integers(0, 2**40, 3000, np.uint64) | np.uint64(0xFFFFFF << 40)
    asked = np.concatenate(
        [held[:1500] ^ np.uint64(0b111), rng.integers(0, 2**40, 1500, np.uint64)]
    )
    held_out = EvaluationSets.of([table(phash=held)])
    found = held_out.find(table(phash=asked)).perceptual
    far = np.bitwise_count(asked[:, None] ^ held[None, :]).min(axis=1)
    assert found.tolist() == (far <= DEFAULT_MAX_BITS).tolist()
    assert found[:1500].all()
    assert not found[1500:].any()


def picture(seed: int) -> Image.Image:
    """A picture with coarse structure, unlike those of other seeds."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


def test_copies_of_real_pictures_are_found_and_others_are_not() -> None:
    held = [encoded(picture(seed), format="PNG") for seed in range(40)]
    copies = [
        encoded(picture(seed).resize((160, 160)), format="JPEG", quality=60) for seed in range(40)
    ]
    others = [encoded(picture(seed), format="PNG") for seed in range(100, 200)]
    flat = encoded(Image.new("RGB", (64, 64), "white"), format="PNG")
    with Decoder() as decoder:
        parts = [decoder.check([*images, flat]) for images in (held, copies, others)]
    tables = [table(sha256=p.sha256, phash=p.phash) for p in parts]
    held_out = EvaluationSets.of([tables[0]])
    same, copied, other = (held_out.find(t) for t in tables)
    assert same.exact.all()
    assert copied.perceptual.tolist() == [True] * 40 + [False]
    assert copied.exact.tolist() == [False] * 40 + [True]
    assert not other.perceptual.any()


def test_tables_without_the_columns() -> None:
    held_out = EvaluationSets.of([table(url=["http://e/1"], sha256=[b"a" * 32], phash=[2**63])])
    found = held_out.find(pa.table({"url": pa.array([None, "http://e/1"], pa.string())}))
    assert found.url.tolist() == [False, True]
    assert not (found.hash | found.hashed).any()
    assert held_out.find(pa.table({"x": [1, 2]})).url.tolist() == [False, False]
    nothing = EvaluationSets.of([])
    assert not nothing.find(table(url=["a"], sha256=[b"a" * 32], phash=[1])).hash.any()
    with pytest.raises(InputError, match="needs a column url, sha256 or phash, but has key"):
        EvaluationSets.of([pa.table({"key": ["a"]})])
    for bits in (-1, 16):
        with pytest.raises(UsageError, match=f"max_bits is {bits}"):
            EvaluationSets.of([], max_bits=bits)


def test_the_file_is_the_same_for_the_same_sets(tmp_path: Path) -> None:
    rng = random.Random(2)
    urls = [f"http://e/{i}" for i in range(50)]
    hashes = [rng.randbytes(32) for _ in range(50)]
    near = [rng.getrandbits(64) for _ in range(50)]
    whole = table(url=urls, sha256=hashes, phash=near)
    for name, parts in (("a", [whole]), ("b", [whole.slice(20), whole.slice(0, 30)])):
        EvaluationSets.of(parts, max_bits=2).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    opened = EvaluationSets.open(tmp_path / "a")
    assert opened.max_bits == 2
    asked = table(
        url=["http://e/3", "http://e/99", None],
        sha256=[None, hashes[4], b"z" * 32],
        phash=[near[0], near[1] ^ 3, near[2] ^ 7],
    )
    found = opened.find(asked)
    assert found.url.tolist() == [True, False, False]
    assert found.exact.tolist() == [False, True, False]
    assert found.perceptual.tolist() == [True, True, False]
