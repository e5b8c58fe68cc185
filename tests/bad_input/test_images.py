"""Images that are no images, bombs, or broken: each costs its row, with the reason."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from schemas.dataset import open_dataset
from tests.bad_input.command import Ran, ingest
from tests.bad_input.making import picture, png, png_chunk

MAX_BYTES, MAX_PIXELS = 200_000, 1_000_000


def gif_header(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)


GIF_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\0;"


def bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def webp_header(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def zip_of_text() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "dog")
    return out.getvalue()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def tiff_pointing_nowhere() -> bytes:
    return b"II*\0" + struct.pack("<I", 0x7FFFFFFF)


def tiff_of(width: int, height: int) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1),
            (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height),
            (279, 4, 1, 10)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + b"\0" * 4


NOT, LARGE = "not_an_image", "image_too_large"
# name: (bytes, reason, what the error says)
CASES: dict[str, tuple[bytes, str, str]] = {
    "text": (b"<img src=x>", NOT, "like no image format"),
    "HTML error page": (b"<!DOCTYPE html><html>404</html>", NOT, "like no image format"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', NOT, "like no image format"),
    "PDF": (b"%PDF-1.7\n1 0 obj", NOT, "like no image format"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n(x) show", NOT, "like no image format"),
    "zip": (zip_of_text(), NOT, "like no image format"),
    "Windows program": (b"MZ" + b"\0" * 100, NOT, "like no image format"),
    "one byte": (b"\xff", NOT, "like no image format"),
    "zeros": (b"\0" * 5000, NOT, "like no image format"),
    "JPEG magic only": (b"\xff\xd8\xff", NOT, ""),
    "JPEG without its end": (picture("JPEG", (64, 64))[:-200], NOT, "truncated"),
    "JPEG header only": (picture("JPEG")[:100], NOT, ""),
    "PNG without its end": (picture("PNG", (64, 64))[:-80], NOT, ""),
    "PNG with a flipped bit": (flipped(picture("PNG", (64, 64)), 200), NOT, ""),
    "PNG without pixels": (png(8, 8, pixels=b""), NOT, ""),
    "PNG with too few pixels": (png(64, 64, pixels=b"\0" * 100), NOT, ""),
    "PNG 0 pixels wide": (png(0, 8), NOT, ""),
    "PNG named JPEG inside": (b"\xff\xd8\xff" + picture("PNG"), NOT, ""),
    "GIF header only": (gif_header(10, 10), NOT, ""),
    "GIF without its end": (picture("GIF", (64, 64))[:-400], NOT, ""),
    "BMP without pixels": (bmp_header(100, 100), NOT, ""),
    "WEBP without its end": (picture("WEBP", (64, 64))[:-60], NOT, ""),
    "WEBP header only": (webp_header(64, 64), NOT, ""),
    "TIFF pointing nowhere": (tiff_pointing_nowhere(), NOT, ""),
    "TIFF without pixels": (tiff_of(100, 100), NOT, ""),
    "AVIF cut": (picture("AVIF", (64, 64))[:150], NOT, ""),
    "no bytes, but a path": (b"", "no_url_no_image", "columns.image"),
    "PNG bomb by header": (png(60_000, 60_000, pixels=b""), LARGE, "3600000000 pixels"),
    "PNG bomb in full": (png(20_000, 9_000), LARGE, "180000000 pixels"),
    "PNG just above the limit": (png(1_001, 1_000), LARGE, "1001000 pixels"),
    "GIF bomb": (gif_header(65_535, 65_535) + GIF_FRAME, LARGE, "pixels"),
    "BMP bomb": (bmp_header(2**30, 2**20), LARGE, "pixels"),
    "WEBP bomb": (webp_header(2**14, 2**14), NOT, ""),
    "TIFF bomb": (tiff_of(2**31, 2**31), LARGE, "pixels"),
    "compressed text bomb": (
        png(8, 8, extra=png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 10_000_000))),
        LARGE,
        "",
    ),
    "profile bomb": (
        png(8, 8, extra=png_chunk(b"iCCP", b"k\0\0" + zlib.compress(b"\0" * 70_000_000))),
        LARGE,
        "",
    ),
    "too many bytes": (
        picture("PNG") + b"\0" * MAX_BYTES,
        LARGE,
        f"limit {MAX_BYTES}",
    ),
}

GOOD = {
    "JPEG": picture("JPEG"), "progressive JPEG": picture("JPEG", progressive=True),
    "PNG": picture("PNG"), "GIF": picture("GIF"), "BMP": picture("BMP"), "TIFF": picture("TIFF"),
    "WEBP": picture("WEBP"), "AVIF": picture("AVIF"), "at the limit": png(1_000, 1_000),
    "bytes after the end": picture("JPEG") + b"<script>alert(1)</script>",
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(place: Path) -> Ran:
    good = list(GOOD.values())
    images = []
    for number, (data, _, _) in enumerate(CASES.values()):
        images += [good[number % len(good)], data]
    column = [{"bytes": data, "path": f"{n}.img"} for n, data in enumerate(images)]
    table = pa.table({"image": column, "text": ["a dog"] * len(images)})
    pq.write_table(table, place / "images.parquet")
    limits = [f"images.max_bytes={MAX_BYTES}", f"images.max_pixels={MAX_PIXELS}"]
    return ingest(place / "images.parquet", place / "out", *limits)


@pytest.mark.parametrize("name", CASES)
def test_dead_letter_names_row_and_reason(ran: Ran, name: str) -> None:
    data, reason, message = CASES[name]
    letter = ran.letter(2 * list(CASES).index(name) + 1)
    assert letter["reason"] == reason, letter["error"]
    assert message in letter["error"]
    assert letter["error"]
    row = pa.ipc.open_stream(letter["row"]).read_all().to_pylist()[0]
    assert row["image"] == (data or None)  # what was refused can be looked at and tried again


def test_good_images_between_them_keep_their_bytes(ran: Ran) -> None:
    assert ran.records is not None
    assert ran.positions == list(range(0, 2 * len(CASES), 2))
    good = list(GOOD.values())
    for number, row in enumerate(ran.records.to_pylist()):
        assert row["image"]["bytes"] == good[number % len(good)]
        assert row["phash"] is not None
        Image.open(io.BytesIO(row["image"]["bytes"])).load()


def test_the_funnel_adds_up(ran: Ran) -> None:
    manifest = open_dataset(str(ran.output / "records")).manifest
    assert manifest.totals["rows"] == len(CASES)
    assert sum(ran.rejected.values()) == len(CASES)
