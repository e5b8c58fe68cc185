"""The decoder: what it sees of good images, and that a bad one costs nothing but itself."""

from __future__ import annotations

import hashlib
import io
import math
import os
import resource
import signal
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation import images
from curation.image_child import perceptual_hash
from curation.images import Decoder, ImageLimits, shared_decoder
from schemas.errors import JobError, UsageError
from tests.bad_input.making import picture, png


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as found:
        yield found


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    monkeypatch.setattr(images, "CHILD", "tests.curation.crashing_child")
    with Decoder(ImageLimits(seconds=3.0)) as found:
        yield found


def bits(a: int, b: int) -> int:
    return (int(a) ^ int(b)).bit_count()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_what_is_seen(decoder: Decoder, kind: str) -> None:
    data = picture(kind, (40, 30))
    seen = decoder.check(pa.array([data, None], pa.binary()))
    assert seen.reason == [None, None]
    assert seen.sha256 == [hashlib.sha256(data).digest(), None]
    assert (seen.width[0], seen.height[0], seen.format[0]) == (40, 30, kind)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I", "I;16", "F"])
def test_every_mode_is_decoded(decoder: Decoder, mode: str) -> None:
    out = io.BytesIO()
    image = Image.open(io.BytesIO(picture()))
    image = image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    image.save(out, "TIFF")
    assert decoder.check([out.getvalue()]).reason == [None]


def loop_hash(grey: np.ndarray) -> list[float]:
    """The 64 coefficients by the definition of the DCT-II."""
    n = 32
    return [
        sum(
            float(grey[y, x])
            * math.cos(math.pi * v * (2 * y + 1) / (2 * n))
            * math.cos(math.pi * u * (2 * x + 1) / (2 * n))
            for y in range(n)
            for x in range(n)
        )
        for v in range(8)
        for u in range(8)
    ]


def test_the_hash_equals_its_definition() -> None:
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    low = loop_hash(grey)
    median = sorted(low)[31] / 2 + sorted(low)[32] / 2
    value = perceptual_hash(grey)
    for i, coefficient in enumerate(low):
        if abs(coefficient - median) > 1:  # rounding to integers moves what is nearer
            assert bool(value >> (63 - i) & 1) == (coefficient > median)


def test_copies_are_near_and_others_far(decoder: Decoder) -> None:
    rng = np.random.default_rng(5)
    hashes, copies = [], []
    for _ in range(20):
        coarse = rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((240, 180), Image.Resampling.BICUBIC)
        for found, size, kind, options in (
            (hashes, (240, 180), "PNG", {}),
            (copies, (100, 75), "JPEG", {"quality": 60}),
        ):
            out = io.BytesIO()
            image.resize(size).save(out, kind, **options)
            found.append(out.getvalue())
    a, b = decoder.check(hashes).phash, decoder.check(copies).phash
    assert max(bits(x, y) for x, y in zip(a, b, strict=True)) <= 6
    others = [bits(a[i], a[j]) for i in range(20) for j in range(i)]
    assert min(others) >= 10


def test_orientation_and_transparency_are_as_a_viewer_shows_them(decoder: Decoder) -> None:
    image = Image.open(io.BytesIO(picture("PNG", (64, 48))))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    clear = image.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 32, 48))
    white = image.copy()
    white.paste((255, 255, 255), (0, 0, 32, 48))
    encoded = []
    for each in (image, clear, white):
        out = io.BytesIO()
        each.save(out, "PNG")
        encoded.append(out.getvalue())
    plain, hidden, covered, rotated = decoder.check([*encoded, turned.getvalue()]).phash
    assert bits(plain, rotated) <= 2
    assert bits(hidden, covered) <= 2
    assert bits(plain, covered) > 6


def test_a_flat_picture_has_one_bit(decoder: Decoder) -> None:
    assert decoder.check([png(64, 64, pixels=b"\x7f" * 65 * 64)]).phash[0] in (0, 2**63)


BAD = {
    "CRASH": "status -6",
    "HANG": "no answer within 3 s",
    "EXIT": "status 0",
    "NOISE": "status 1",
}


@pytest.mark.parametrize("name", BAD)
def test_a_crash_costs_one_image(crashing: Decoder, name: str) -> None:
    good = [picture(seed=n) for n in range(9)]
    data = [*good[:4], name.encode() + b"x" * 1000, *good[4:]]
    seen = crashing.check(data)
    assert seen.reason == [None] * 4 + ["image_crashed_decoder"] + [None] * 5
    assert BAD[name] in str(seen.error[4])
    assert [bool(sha) for sha in seen.sha256] == [True] * 4 + [False] + [True] * 5


def test_every_image_may_crash(crashing: Decoder) -> None:
    seen = crashing.check([b"CRASH" + bytes([n]) for n in range(4)])
    assert seen.reason == ["image_crashed_decoder"] * 4


def test_memory_is_bounded(crashing: Decoder) -> None:
    seen = crashing.check([picture(), b"MEMORY", picture()])
    assert seen.reason == [None, "image_too_large", None]
    assert seen.error[1] == "needs more memory than a decoder may use"


def test_a_decoder_killed_from_outside_costs_nothing(decoder: Decoder) -> None:
    data = [picture(seed=n) for n in range(5)]
    expected = decoder.check(data)
    process = decoder._children[0].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    again = decoder.check(data)
    assert again.reason == [None] * 5
    assert again.sha256 == expected.sha256


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    data: list[bytes | None] = [picture(seed=n, size=(20 + n % 7, 20)) for n in range(300)]
    data[17], data[200] = b"<html>", None
    with Decoder() as one, Decoder(workers=3) as three:
        a, b = one.check(data), three.check(data)
    assert (a.reason, a.sha256, a.error) == (b.reason, b.sha256, b.error)
    assert (a.phash == b.phash).all()


def test_large_batches_do_not_wait_for_each_other(decoder: Decoder) -> None:
    data = [picture("BMP", (1200, 900), seed=n) for n in range(12)]  # 39 MB: several requests
    assert decoder.check(data).reason == [None] * 12


def test_a_process_with_many_open_files_decodes() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = most[1] if most[1] != resource.RLIM_INFINITY else 2048
    if hard < 1200:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most[0], 1200), most[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        with Decoder() as found:
            assert found.check([picture("JPEG")]).reason == [None]
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


def test_the_pool_is_shared_and_comes_back_after_closing() -> None:
    limits = ImageLimits(max_pixels=12_345)
    decoder = shared_decoder(limits)
    assert shared_decoder(limits) is decoder
    assert decoder.check([picture()]).reason == [None]
    decoder.close()
    assert decoder.check([picture()]).reason == [None]
    decoder.close()


def test_a_decoder_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "CHILD", "curation.no_such_module")
    with Decoder() as decoder, pytest.raises(JobError, match="did not start"):
        decoder.check([picture()])


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "seconds", "memory"])
def test_limits_must_be_positive(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        ImageLimits(**{name: 0})
