from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from curation.page import thumbnails as module
from curation.page.thumbnails import SIDE, thumbnails
from tests.dataflows.report.build import png


def decoded(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    image.load()
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_a_thumbnail_is_small_and_ours() -> None:
    noise = Image.effect_noise((900, 600), 80).convert("RGB")
    secret = encoded(noise, "JPEG", quality=95, comment=b"<script>alert(1)</script>")
    [found] = thumbnails([secret])
    small = decoded(found.uri)
    assert small.size == (found.width, found.height) == (SIDE, round(SIDE * 600 / 900))
    assert b"script" not in base64.b64decode(found.uri.partition(",")[2])


def test_small_pictures_are_not_enlarged_and_lie_on_white() -> None:
    clear = encoded(Image.new("RGBA", (40, 20), (0, 0, 0, 0)), "PNG")
    [found] = thumbnails([clear])
    assert (found.width, found.height) == (40, 20)
    assert decoded(found.uri).getpixel((5, 5)) == (255, 255, 255)


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.new("RGB", (60, 30), "red"), "JPEG", exif=exif)
    [found] = thumbnails([turned])
    assert (found.width, found.height) == (30, 60)


def test_one_bad_picture_costs_one_picture() -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    images = [png("red"), b"junk", None, b"", bomb, png("blue")[:60], b"<svg/>", png("green")]
    found = thumbnails(images)
    assert [bool(one.uri) for one in found] == [True, *[False] * 6, True]
    assert all(one.note for one in found if not one.uri)
    assert np.asarray(decoded(found[-1].uri))[5, 5, 1] > 90


def test_a_decoder_that_says_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", -1.999)  # with a second for each picture: no time at all
    found = thumbnails([png("red"), png("blue")])
    assert [one.note for one in found] == ["decoding this picture ended the decoder"] * 2


def test_a_decoder_without_memory_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY", 2**22)
    [found] = thumbnails([png("red", (2000, 2000))])
    assert not found.uri and found.note


def test_large_files_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    [found] = thumbnails([b"x" * 101])
    assert not found.uri and "101 bytes" in found.note
