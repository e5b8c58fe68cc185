"""What becomes of pictures: sizes, upright, on white, near to Pillow's; and crashes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageOps

from curation.fetch import resize
from curation.fetch.resize import Resized, Resizing
from curation.fetch.resize_child import SIZES, Resize
from curation.image_child import ANSWER
from curation.images import Decoder
from tests.curation.fetch.asking import ask, options
from tests.fetch_server import FetchServer, bomb, jpeg


@pytest.fixture(scope="module")
def resizing() -> Iterator[Resizing]:
    with Resizing(options()) as found:
        yield found


def smooth(size: tuple[int, int] = (600, 400)) -> Image.Image:
    coarse = np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **more: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def seen(resizing: Resizing, *data: bytes) -> Resized:
    return resizing.check(list(data))


def difference(stored: bytes | None, wanted: Image.Image) -> float:
    """The mean difference in grey levels to the picture as Pillow would make it."""
    image = Image.open(io.BytesIO(stored or b"")).convert("RGB")
    wanted = wanted.convert("RGB").resize(image.size, Image.Resampling.BOX)
    return float(np.abs(np.asarray(image, float) - np.asarray(wanted, float)).mean())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_every_format(resizing: Resizing, kind: str) -> None:
    data = saved(smooth(), kind)
    found = seen(resizing, data)
    assert found.reason == [None], found.error
    assert (found.width[0], found.height[0]) == (384, 256)
    assert (found.original_width[0], found.original_height[0]) == (600, 400)
    assert difference(found.image[0], Image.open(io.BytesIO(data))) < 3
    assert found.sha256 == [hashlib.sha256(data).digest()]


def test_the_hash_is_that_of_the_original(resizing: Resizing) -> None:
    data = [saved(smooth(), kind) for kind in ("JPEG", "PNG")]
    with Decoder() as decoder:
        assert (seen(resizing, *data).phash == decoder.check(data).phash).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_stored_upright(resizing: Resizing, orientation: int) -> None:
    """The decoder of the resizer knows nothing of EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(smooth(), "JPEG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    found = seen(resizing, data)
    assert (found.original_width[0], found.original_height[0]) == upright.size
    assert difference(found.image[0], upright) < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_what_is_transparent_becomes_white(resizing: Resizing, kind: str) -> None:
    image = smooth().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 300, 400))
    stored = Image.open(io.BytesIO(seen(resizing, saved(image, kind)).image[0] or b""))
    left = np.asarray(stored.convert("RGB"))[:, : stored.width // 2 - 8]
    assert left.min() > 245


def test_sixteen_bits_and_other_modes(resizing: Resizing) -> None:
    """Sixteen bits come out as the same picture, not white or wrapped around."""
    grey = smooth().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert seen(resizing, saved(grey.convert("1"), "PNG")).reason == [None]
    for data in (saved(deep, "PNG"), saved(deep, "TIFF"), saved(grey, "JPEG")):
        assert difference(seen(resizing, data).image[0], grey) < 3
    assert (
        difference(seen(resizing, saved(smooth().convert("CMYK"), "JPEG")).image[0], smooth()) < 5
    )
    ten = np.asarray(smooth()).astype(np.uint16) * 257
    import cv2

    data = cv2.imencode(".png", ten[..., ::-1])[1].tobytes()
    assert difference(seen(resizing, data).image[0], smooth()) < 3


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        ("keep_ratio", (384, 256)),
        ("keep_ratio_largest", (256, 171)),
        ("center_crop", (256, 256)),
        ("border", (256, 256)),
    ],
)
def test_modes(mode: str, size: tuple[int, int]) -> None:
    resized = Resize(mode, 256, True, "jpg", 95)
    big, small = (unpacked(resized(saved(smooth(s), "JPEG"))) for s in ((600, 400), (60, 40)))
    assert big == ("JPEG", size, (600, 400, *size))
    assert small == ("JPEG", (60, 40), (60, 40, 60, 40))  # smaller ones are left as they are


@pytest.mark.parametrize(("kind", "quality"), [("png", 9), ("webp", 90)])
def test_encoding(kind: str, quality: int) -> None:
    found = unpacked(
        Resize("keep_ratio", 256, False, kind, quality)(saved(smooth((60, 40)), "JPEG"))
    )
    assert found == (kind.upper(), (384, 256), (60, 40, 384, 256))


def unpacked(answer: bytes) -> tuple[str | None, tuple[int, int], tuple[int, ...]]:
    """Format and size of the stored picture, and the four sizes that were told."""
    rest = answer[ANSWER.size :]
    image = Image.open(io.BytesIO(rest[SIZES.size :]))
    return image.format, image.size, SIZES.unpack_from(rest)


def test_bad_bytes_have_reasons(resizing: Resizing) -> None:
    data = jpeg()
    found = seen(resizing, b"no image", data[: len(data) // 2], bomb(), data)
    assert found.reason == ["not_an_image", "not_an_image", "image_too_large", None]
    assert found.image[:3] == [None] * 3


def test_bytes_are_kept_without_resizing(server: FetchServer) -> None:
    server.bodies["/gif"] = ("image/gif", saved(smooth(), "GIF"))
    server.bodies["/half"] = ("image/jpeg", server.good[:-2000])
    urls = [server.url("kept", path) for path in ("/good", "/gif", "/half", "/nonsense")]
    rows = ask(urls, resize="no", allow_private=server.allow("kept"))
    assert [row["reason"] for row in rows] == ["", "", "not_an_image", "not_an_image"]
    assert rows[0]["image"]["bytes"] == server.good
    assert rows[1]["image"]["bytes"] == server.bodies["/gif"][1]
    assert (rows[0]["width"], rows[0]["height"], rows[0]["original_width"]) == (640, 480, 640)


def test_a_crash_costs_one_row(server: FetchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resizing, "child", "tests.curation.fetch.crashing_resize_child")
    monkeypatch.setattr(resize, "_shared", {})
    server.bodies["/crash"] = ("image/jpeg", b"CRASH")
    paths = [f"/good?{i}" for i in range(3)] + ["/crash"] + [f"/good?{i}" for i in range(3, 6)]
    urls = [server.url("crash", path) for path in paths]
    rows = ask(urls, resize="no", allow_private=server.allow("crash"))
    assert [row["reason"] for row in rows] == ["", "", "", "image_crashed_decoder", "", "", ""]
    assert rows[3]["sha256"] == hashlib.sha256(b"CRASH").digest()
    resize.shared_resizers(options(resize="no"))[0].close()
