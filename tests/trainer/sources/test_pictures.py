"""Decoding, resizing and normalising, against Pillow and plain arithmetic; and what is refused."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from curation.pool import render as pool
from curation.pool.scene import url_of
from curation.pool.stamps import load as load_stamps
from trainer.sources import pictures
from trainer.sources.crops import TRIES, chances, crop
from trainer.sources.pictures import BadImage, Limits


def photo(width: int, height: int, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """A picture with edges and detail: a grid of pictures of the generated pool."""
    side = 256
    sheet = Image.new("RGB", (width, height))
    stamps = load_stamps().stamps
    for i, left in enumerate(range(0, width, side)):
        for j, top in enumerate(range(0, height, side)):
            tile = pool.render(url_of(1, 10 * i + j, stamps[3 * i + j].id), side)
            sheet.paste(Image.open(io.BytesIO(tile)), (left, top))
    sink = io.BytesIO()
    sheet.convert(mode).save(sink, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return sink.getvalue()


def pillow(data: bytes, size: tuple[int, int], box: tuple[float, ...] | None = None) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box)).astype(float)


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    error = np.mean((found.astype(float) - wanted) ** 2)
    return math.inf if error == 0 else float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((640, 480), (341, 256)),
        ((1600, 1200), (341, 256)),
        ((1200, 1600), (64, 64)),
        ((96, 96), (224, 224)),
    ],
)
def test_a_jpeg_is_as_pillow_decodes_and_resizes_it(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    data = photo(*shape)
    found = pictures.load(data, size).permute(1, 2, 0).numpy()
    assert psnr(found, pillow(data, size)) >= 40
    decoded = pictures.decode(data, size)
    assert decoded.shape[0] >= min(2 * size[1], shape[1])
    assert decoded.shape[1] >= min(2 * size[0], shape[0])
    assert (decoded.shape[0] < shape[1]) == (min(shape) >= 1200), "scaled while decoding"


def test_a_cut_is_the_part_that_pillow_cuts() -> None:
    data = photo(1600, 1200)
    box = (160, 40, 1440, 1160)
    part = (0.1, 40 / 1200, 0.9, 1160 / 1200)
    found = pictures.load(data, (64, 64), lambda w, h: part).permute(1, 2, 0).numpy()
    assert psnr(found, pillow(data, (64, 64), box)) >= 40
    whole = pictures.load(data, (64, 64)).permute(1, 2, 0).numpy()
    assert psnr(whole, pillow(data, (64, 64), box)) < 30, "the cut matters"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_go_through_pillow(kind: str) -> None:
    data = photo(320, 240, kind)
    found = pictures.load(memoryview(data), (85, 64)).permute(1, 2, 0).numpy()
    assert psnr(found, pillow(data, (85, 64))) >= 40


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_become_rgb(mode: str) -> None:
    data = photo(320, 240, "JPEG", mode)
    found = pictures.load(data, (85, 64)).permute(1, 2, 0).numpy()
    assert psnr(found, pillow(data, (85, 64))) >= 40


def test_what_is_transparent_is_white() -> None:
    sink = io.BytesIO()
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(sink, "PNG")
    assert (pictures.decode(sink.getvalue()) == 255).all()


def test_limits_hold_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    import simplejpeg

    files = {kind: photo(320, 240, kind) for kind in ("JPEG", "PNG")}

    def never(*args: object, **more: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    monkeypatch.setattr(Image.Image, "load", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    for data in files.values():
        with pytest.raises(BadImage, match="320 x 240 pixels, the limit is 76799") as caught:
            pictures.decode(data, limits=Limits(max_pixels=320 * 240 - 1))
        assert caught.value.reason == "image_too_large"
        with pytest.raises(BadImage, match=f"has {len(data)} bytes, the limit is 999"):
            pictures.decode(data, limits=Limits(max_bytes=999))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_does_not_decode_is_refused(kind: str) -> None:
    data = photo(320, 240, kind)
    for bad in (b"", b"<html>", data[: len(data) // 2], data[:20], b"\xff\xd8\xff" + bytes(99)):
        with pytest.raises(BadImage) as caught:
            pictures.decode(bad)
        assert caught.value.reason == "not_an_image"


def test_normalising_uses_the_numbers_of_openai() -> None:
    import torch

    assert pictures.MEAN == (0.48145466, 0.4578275, 0.40821073)
    assert pictures.STD == (0.26862954, 0.26130258, 0.27577711)
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(3, 3, 16, 16)
    found = pictures.normalise(images)
    mean, std = np.array(pictures.MEAN, np.float32), np.array(pictures.STD, np.float32)
    values = np.arange(256, dtype=np.float32).reshape(16, 16) / np.float32(255)
    wanted = (values - mean[:, None, None]) / std[:, None, None]
    assert found.dtype == torch.float32 and found.shape == (3, 3, 16, 16)
    assert np.array_equal(found[1].numpy(), wanted)
    assert torch.equal(pictures.normalise(images[:1]), found[:1])


def test_crops_lie_inside_and_have_the_size_that_is_asked() -> None:
    samples = np.arange(4000)
    u = chances(7, 1, samples)
    areas, ratios = [], []
    for i, (width, height) in enumerate([(640, 480), (300, 300), (90, 100)] * 1000):
        left, top, right, bottom = crop(width, height, (0.9, 1.0), u[i])
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        if width == height:
            areas.append((right - left) * (bottom - top))
            ratios.append((right - left) / (bottom - top))
    # Of a square a part of at least 0.9 fits only for ratios of 0.9 to 1/0.9.
    assert min(areas) >= 0.895 and 0.94 < np.mean(areas) < 0.96
    assert 0.89 < min(ratios) < 0.95 and 1.05 < max(ratios) < 1.12
    # What never fits is cut in the middle, at the extreme ratio.
    assert crop(1000, 10, (0.9, 1.0), u[0]) == (493 / 1000, 0.0, 506 / 1000, 1.0)
    left, top, right, bottom = crop(10, 1000, (0.9, 1.0), u[0])
    assert (left, right, round(1000 * (bottom - top))) == (0, 1, 13)


def test_crops_are_functions_of_seed_epoch_and_sample() -> None:
    base = chances(7, 1, np.arange(50))
    assert base.shape == (50, TRIES, 4)
    assert np.array_equal(chances(7, 1, np.array([31, 4])), base[[31, 4]])
    for other in (chances(8, 1, np.arange(50)), chances(7, 2, np.arange(50))):
        assert not np.isclose(other, base).any(axis=(1, 2)).all()
    assert len(np.unique(base)) == base.size
