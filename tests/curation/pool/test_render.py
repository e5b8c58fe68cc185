"""Pictures of the generated pool: pure in the URL, valid, varied, and true to their texts."""

from __future__ import annotations

import colorsys
import hashlib
import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.pool import scene
from curation.pool.config import PoolConfig
from curation.pool.generate import generate
from curation.pool.render import render, render_images
from schemas.errors import InputError, UsageError
from schemas.table_schemas import IMAGE

HUES = {"red": 0.0, "orange": 0.085, "yellow": 0.15, "green": 0.36, "blue": 0.6, "purple": 0.77}


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        return np.asarray(image).astype(np.float32)


@pytest.fixture(scope="module")
def urls() -> list[str]:
    return sorted(set(generate(11, 0, 400)["url"].to_pylist()))


def test_bytes_do_not_depend_on_order_or_process(urls: list[str]) -> None:
    some = urls[:40]
    forward = [render(url, 64) for url in some]
    backward = [render(url, 64) for url in reversed(some)][::-1]
    assert forward == backward
    program = (
        "import sys, hashlib; from curation.pool.render import render; "
        "print(hashlib.sha256(b''.join(render(u, 64) for u in sys.argv[1:])).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *some], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == hashlib.sha256(b"".join(forward)).hexdigest()


@pytest.mark.parametrize("size", [16, 96, 224])
def test_pictures_have_their_size(urls: list[str], size: int) -> None:
    for url in urls[:10]:
        assert pixels(render(url, size)).shape == (size, size, 3)


def test_sizes_show_the_same_scene(urls: list[str]) -> None:
    for url in urls[:10]:
        small, large = pixels(render(url, 64)), pixels(render(url, 128))
        halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(small - halved).mean() < 16, url


def test_no_two_pictures_are_alike(urls: list[str]) -> None:
    pictures = [render(url, 48) for url in urls]
    assert len(set(pictures)) == len(pictures)
    small = np.stack([pixels(data).reshape(12, 4, 12, 4, 3).mean((1, 3)) for data in pictures])
    flat = small.reshape(len(small), -1)
    nearest = [np.sort(np.abs(flat - one).mean(1))[1] for one in flat]
    assert min(nearest) > 4  # of 255, mean over a 12 x 12 picture
    assert np.median(nearest) > 10


def test_one_stamp_is_drawn_in_many_ways() -> None:
    stamp = "animals/mammals/elephant"
    chosen = [scene.url_of(1, n, stamp) for n in range(60)]
    stack = np.stack([pixels(render(url, 48)) for url in chosen])
    distance = np.abs(stack[::2] - stack[1::2]).mean((1, 2, 3))
    assert np.median(distance) > 40
    assert distance.min() > 5
    assert {scene.parse(url).colour for url in chosen} == set(scene.COLOURS)


def test_background_has_the_colour_that_texts_name(urls: list[str]) -> None:
    checked = 0
    for url in urls:
        colour = scene.parse(url).colour
        data = pixels(render(url, 64))
        edge = np.concatenate([data[0], data[-1], data[:, 0], data[:, -1]]) / 255
        hue, saturation, _ = colorsys.rgb_to_hsv(*np.median(edge, axis=0))
        if colour == "gray":
            assert saturation < 0.15, url
        elif colour in HUES:
            apart = abs(hue - HUES[colour])
            assert min(apart, 1 - apart) < 0.07, (url, hue)
        checked += 1
    assert checked > 300


def test_the_stamp_is_visible() -> None:
    """The same scene with another stamp differs in many pixels."""
    for n in range(30):
        one, two = (
            pixels(render(scene.url_of(2, n, stamp), 64))
            for stamp in ("animals/mammals/elephant", "food/fruit/cartoon/lemon")
        )
        assert (np.abs(one - two).max(-1) > 40).mean() > 0.04, n


def test_image_column() -> None:
    table = generate(3, 0, 20, PoolConfig(split="train"))
    images = render_images(table["url"], 48)
    assert images.type == IMAGE
    assert len(images) == table.num_rows
    for url, image in zip(table["url"].to_pylist(), images.to_pylist(), strict=True):
        assert image["bytes"] == render(url, 48)
        assert image["path"].endswith(".jpg")
    assert render_images(pa.array([], pa.string())).type == IMAGE


def test_unknown_stamps_and_sizes_are_refused(urls: list[str]) -> None:
    with pytest.raises(InputError, match="no stamp 'animals/unicorn'"):
        render("generated://pool/1/2/animals/unicorn")
    with pytest.raises(InputError, match="is not an image of the generated pool"):
        render("https://example.org/a.jpg")
    for size in (8, 4096):
        with pytest.raises(UsageError, match=f"size {size} is not between 16 and 512"):
            render(urls[0], size)
