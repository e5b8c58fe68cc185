"""The child process that decodes untrusted images, one after another, and answers with what it saw.

Started by :mod:`curation.images`; never imported by it into the parent's decoding path. Protocol
on the two pipes, little endian: a request is a count (u32) and so many lengths (u32), then the
bytes of all of them; an answer is one :data:`ANSWER` struct an image and the bytes that it
announces: the error text.
"""

from __future__ import annotations

import hashlib
import io
import resource
import struct
import sys
import warnings
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from PIL import Image

# status, format, width, height, perceptual hash, SHA-256, bytes of error text that follow
ANSWER = struct.Struct("<BBIIQ32sI")
READY = b"headrace-decoder\n"

OK, NOT_AN_IMAGE, TOO_LARGE = range(3)
FORMATS = ("", "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")
OPENED = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]  # MPO comes by way of JPEG
_BOMBS = (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning)
_SIDE, _KEPT = 32, 8


def _cosines() -> np.ndarray:
    """The first 8 rows of a 32-point DCT-II in integers, so that the hash is exact everywhere."""
    k, i = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None, :]
    return np.round(np.cos(np.pi * k * (2 * i + 1) / (2 * _SIDE)) * 2**14).astype(np.int64)


COSINES = _cosines()


def perceptual_hash(grey: np.ndarray) -> int:
    """pHash of a (32, 32) uint8 picture: the 8 x 8 lowest DCT frequencies against their median.

    64 bits; bit 63 is the constant term, then row by row. A flat picture has no other bit set.
    """
    low = (COSINES @ grey.astype(np.int64) @ COSINES.T).ravel()
    ordered = np.sort(low)
    bits = 2 * low > ordered[31] + ordered[32]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where none can be read."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF is free text to a hostile writer; without it the picture still counts
        return 1


def oriented(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(orientation)
    return image if turn is None else image.transpose(turn)


def _grey(image: Image.Image) -> np.ndarray:
    """The picture as a viewer shows it (EXIF orientation, on white) in 32 x 32 grey levels."""
    turn = orientation(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        small = image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        white = Image.new("RGBA", small.size, "white")
        small = Image.alpha_composite(white, small).convert("L")
    else:
        small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return np.asarray(oriented(small, turn), dtype=np.uint8)


def look(data: bytes) -> bytes:
    """Decode ``data`` in full and pack the answer; never raises for what the bytes can cause."""
    try:
        with Image.open(io.BytesIO(data), formats=OPENED) as image:
            (width, height), kind = image.size, FORMATS.index(image.format or "")
            # A JPEG is decoded at a scale that still keeps every frequency that the hash looks at.
            image.draft("L", (4 * _SIDE, 4 * _SIDE))
            image.load()
            value = perceptual_hash(_grey(image))
    except Exception as error:
        return failed(data, error)
    return ANSWER.pack(OK, kind, width, height, value, hashlib.sha256(data).digest(), 0)


def failed(data: bytes, error: Exception) -> bytes:
    """The answer for an image that did not decode."""
    status, message = NOT_AN_IMAGE, str(error) or type(error).__name__
    if isinstance(error, _BOMBS) or any(word in message for word in ("too large", "MAX_TEXT")):
        status = TOO_LARGE
    if isinstance(error, MemoryError):
        message = "needs more memory than a decoder may use"
    if isinstance(error, Image.UnidentifiedImageError):
        message = "the bytes begin like no image format that is read here"
    text = message.encode("utf-8", "replace")[:500]
    return ANSWER.pack(status, 0, 0, 0, 0, hashlib.sha256(data).digest(), len(text)) + text


def _read(stream: BinaryIO, size: int) -> bytes | None:
    data = stream.read(size)
    return data if len(data) == size else None


def serve(requests: BinaryIO, answers: BinaryIO, answer: Callable[[bytes], bytes]) -> None:
    """Answer requests until the parent closes its end."""
    answers.write(READY)
    answers.flush()
    while (head := _read(requests, 4)) is not None:
        count = struct.unpack("<I", head)[0]
        lengths = struct.unpack(f"<{count}I", requests.read(4 * count))
        # All of it first: the parent writes without reading, so neither waits for the other.
        batch = [requests.read(length) for length in lengths]
        for data in batch:
            answers.write(answer(data))
            answers.flush()


def main(max_pixels: int, memory: int, answer: Callable[[bytes], bytes] | None = None) -> None:
    """Bound this process, then serve; ``answer`` makes the answer to an image, :func:`look` else."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    serve(sys.stdin.buffer, sys.stdout.buffer, answer or look)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
