"""Decoding and resizing what was fetched, in child processes with limits.

Each image is looked at as :mod:`curation.images` does (pixels before decoding, format by content,
perceptual hash of the original) and then resized and encoded by img2dataset's resizer.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from curation.fetch.options import FetchOptions
from curation.fetch.resize_child import SIZES
from curation.images import Checked, Decoder, ImageLimits

CHILD = "curation.fetch.resize_child"


@dataclass
class Resized(Checked):
    """What was seen of n images; ``width`` and ``height`` are those of the stored ``image``."""

    image: list[bytes | None] = field(default_factory=list)
    original_width: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    original_height: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))

    @classmethod
    def empty(cls, n: int) -> Resized:
        """n images of which nothing is known yet."""
        found = super().empty(n)
        assert isinstance(found, Resized)
        found.image = [None] * n
        found.original_width, found.original_height = np.zeros((2, n), np.int32)
        return found


class Resizing(Decoder):
    """One decoder process that also resizes."""

    child = CHILD
    seen = Resized

    def __init__(self, options: FetchOptions) -> None:
        self.words = (
            options.resize,
            str(options.image_size),
            str(int(options.only_if_bigger)),
            options.encode_format,
            str(options.encode_quality),
        )
        super().__init__(ImageLimits(options.max_bytes, options.max_pixels))

    def check(self, images: pa.Array | Sequence[bytes | None]) -> Resized:
        """Decode, resize and encode each image and say what was seen."""
        found = super().check(images)
        assert isinstance(found, Resized)
        return found

    @staticmethod
    def _fill(result: Checked, i: int, values: tuple, rest: bytes) -> None:
        """As the decoder does; of an image that decoded, ``rest`` is sizes and encoded bytes."""
        assert isinstance(result, Resized)
        good = values[0] == 0
        Decoder._fill(result, i, values, b"" if good else rest)
        if good:
            width, height, stored_width, stored_height = SIZES.unpack_from(rest)
            result.original_width[i], result.original_height[i] = width, height
            result.width[i], result.height[i] = stored_width, stored_height
            result.image[i] = rest[SIZES.size :]


_shared: dict[tuple, list[Resizing]] = {}
_lock = threading.Lock()


def shared_resizers(options: FetchOptions) -> list[Resizing]:
    """This process's ``options.decoders`` decoders: starting one takes a second."""
    with _lock:
        key = (
            os.getpid(),
            options.decoders,
            options.resize,
            options.image_size,
            options.only_if_bigger,
            options.encode_format,
            options.encode_quality,
            options.max_bytes,
            options.max_pixels,
        )
        if key not in _shared:
            _shared[key] = [Resizing(options) for _ in range(options.decoders)]
            for resizer in _shared[key]:
                atexit.register(resizer.close)
        return _shared[key]
