"""The child process that decodes, resizes and encodes fetched images, one after another.

The protocol is that of :mod:`curation.image_child`; after the answer of an image that decoded come
:data:`SIZES` and the encoded bytes (none if they are kept as they came).
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from curation import image_child
from curation.image_child import ANSWER

SIZES = struct.Struct("<4I")
"""Width and height of the original (upright, if it is resized), width and height stored."""

# What the resizer's own decoder (OpenCV) reads as Pillow does. It ignores EXIF orientation, keeps
# 16 bits where there are, and lacks formats: anything else is handed over as plain RGB.
_DIRECT_FORMATS, _DIRECT_MODES = ("JPEG", "MPO", "WEBP"), ("RGB", "L")


def plain_rgb(image: Image.Image) -> bytes:
    """An uncompressed RGB picture as a viewer shows it: turned upright, transparency on white."""
    turn = image_child.orientation(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    elif image.mode[0] == "I":
        image = Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    elif image.mode == "F":
        image = image.convert("L")
    out = io.BytesIO()
    image_child.oriented(image.convert("RGB"), turn).save(out, "BMP")
    return out.getvalue()


def _eight_bits(levels: np.ndarray, mode: str) -> np.ndarray:
    """Grey levels of integer pixels: the upper 8 of 16 bits, where there are more than 8."""
    deep = mode != "I" or levels.max(initial=0) > 255
    return np.clip(levels.astype(np.int64) >> (8 if deep else 0), 0, 255).astype(np.uint8)


class Resize:
    """Look at an image, then resize and encode it."""

    def __init__(
        self, mode: str, size: int, only_if_bigger: bool, encode_format: str, quality: int
    ) -> None:
        self._resizer: Callable[[io.BytesIO], Any] | None = None
        if mode != "no":
            from curation.fetch.third_party import img2dataset

            self._resizer = img2dataset("resizer").Resizer(
                image_size=size,
                resize_mode=mode,
                resize_only_if_bigger=only_if_bigger,
                encode_quality=quality,
                encode_format=encode_format,
            )

    def __call__(self, data: bytes) -> bytes:
        """The packed answer; never raises for what the bytes can cause."""
        seen = image_child.look(data)
        values = ANSWER.unpack_from(seen)
        if values[0] != image_child.OK:
            return seen
        try:
            stored, sizes = self._stored(data, values[2], values[3])
        except Exception as error:
            return image_child.failed(data, error)
        rest = SIZES.pack(*sizes) + stored
        return ANSWER.pack(*values[:-1], len(rest)) + rest

    def _stored(self, data: bytes, width: int, height: int) -> tuple[bytes, tuple[int, ...]]:
        """The bytes to keep and four sizes. Raises ValueError naming what the resizer said."""
        if self._resizer is None:  # kept as they are: the parent has them
            return b"", (width, height, width, height)
        with Image.open(io.BytesIO(data), formats=image_child.OPENED) as image:
            direct = image.format in _DIRECT_FORMATS and image.mode in _DIRECT_MODES
            given = data
            if not direct or image_child.orientation(image) != 1:
                given = plain_rgb(image)
        stored, new_width, new_height, width, height, error = self._resizer(io.BytesIO(given))
        if error is not None:
            raise MemoryError if "llocat" in error else ValueError(f"the resizer says: {error}")
        return stored, (width, height, new_width, new_height)


def main(words: list[str]) -> None:
    """Bound this process, then serve."""
    mode, size, only_if_bigger, encode_format, quality = words[2:]
    resize = Resize(mode, int(size), only_if_bigger == "1", encode_format, int(quality))
    image_child.main(int(words[0]), int(words[1]), resize)


if __name__ == "__main__":
    main(sys.argv[1:])
