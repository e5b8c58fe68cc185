"""Pictures from bytes to pixels: decode, crop, resize, normalise.

JPEG goes through libjpeg-turbo (simplejpeg), scaled while decoding as long as twice the wanted size
is left; other formats, and what simplejpeg refuses, through Pillow. Resizing is torch's bicubic with
antialiasing on bytes, which follows Pillow's: the result is within 40 dB of Pillow's full decode and
resize (`tests/benchmarks/bench_decoding.py` states both speeds and distances).

Limits hold before anything is decoded: bytes, and pixels as the header states them. EXIF
orientation is not applied, as in the paper's loader. Colours become RGB, transparent parts white.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from schemas.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as parts (0 to 1) of width and height."""

Cut = Callable[[int, int], Box]
"""Which part to take of a picture of (width, height)."""

WHOLE: Final[Box] = (0.0, 0.0, 1.0, 1.0)
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue (0 to 1) that CLIP subtracts: OpenAI's."""

STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""What CLIP divides by after that: OpenAI's."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_MARGIN = 2
# Decoding at a lower scale keeps this many times the wanted pixels a side: at once (scaled in the
# DCT) they would differ from Pillow's by more than 40 dB, at twice the size the difference is 48 dB.


class BadImage(InputError):
    """An image that cannot be used; ``reason`` is a word for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """Bounds of one image, checked before decoding: bytes, and pixels (Pillow's own default)."""

    max_bytes: int = 64 << 20
    max_pixels: int = 89_478_485


LIMITS: Final = Limits()


def decode(
    data: bytes | memoryview,
    size: tuple[int, int] | None = None,
    cut: Cut | None = None,
    limits: Limits = LIMITS,
) -> Pixels:
    """Return a picture, or the part that `cut` gives, as uint8 [height, width, 3], RGB.

    ``size``: (width, height) that `resize` will make of it; the result may then be smaller than the
    original, but has at least twice that (all pixels if not given). BadImage for bytes that do not
    decode in full or break a limit.
    """
    import simplejpeg

    box = WHOLE
    if header := _jpeg_size(data, limits):
        box = cut(*header) if cut else WHOLE
        width = height = 0
        if size is not None:
            width = math.ceil(_MARGIN * size[0] / (box[2] - box[0]))
            height = math.ceil(_MARGIN * size[1] / (box[3] - box[1]))
        try:
            pixels = simplejpeg.decode_jpeg(
                data, "RGB", min_width=width, min_height=height, min_factor=2
            )
            return _part(pixels, box)
        except (ValueError, RuntimeError):
            pass  # CMYK, or damage that Pillow can say more about
    with _opened(data, limits) as image:
        box = cut(*image.size) if cut else WHOLE
        try:
            image.load()
            return _part(np.array(_rgb(image)), box)
        except (OSError, ValueError, SyntaxError, MemoryError, EOFError) as error:
            raise BadImage("not_an_image", f"an image does not decode: {error}") from None


def resize(pixels: Pixels, size: tuple[int, int]) -> torch.Tensor:
    """Return uint8 [3, height, width] of uint8 [h, w, 3]: bicubic, antialiased. ``size``: (width, height)."""
    import torch
    from torch.nn.functional import interpolate

    width, height = size
    # A view in the layout for which torch has its fast path: three channels, interleaved.
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).unsqueeze(0)
    if tuple(image.shape[2:]) != (height, width):
        image = interpolate(image, (height, width), mode="bicubic", antialias=True)
    return image[0]


def load(
    data: bytes | memoryview,
    size: tuple[int, int],
    cut: Cut | None = None,
    limits: Limits = LIMITS,
) -> torch.Tensor:
    """Return a picture or a part of it as uint8 [3, height, width]: `decode`, then `resize`."""
    return resize(decode(data, size, cut, limits), size)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Return (images / 255 - MEAN) / STD as float32, of uint8 [..., 3, height, width]."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    # Every value by itself and in this order, so a batch gives the bits that its samples give alone.
    return images.to(torch.float32).contiguous().div_(255).sub_(mean).div_(std)


def _part(pixels: Pixels, box: Box) -> Pixels:
    height, width = pixels.shape[:2]
    left, right = _whole(box[0], box[2], width)
    top, bottom = _whole(box[1], box[3], height)
    return pixels[top:bottom, left:right]


def _whole(low: float, high: float, pixels: int) -> tuple[int, int]:
    first = min(round(low * pixels), pixels - 1)
    return first, min(max(round(high * pixels), first + 1), pixels)


def _jpeg_size(data: bytes | memoryview, limits: Limits) -> tuple[int, int] | None:
    """Width and height of a JPEG; None for other bytes."""
    import simplejpeg

    if len(data) > limits.max_bytes:
        raise BadImage(
            "image_too_large", f"an image has {len(data)} bytes, the limit is {limits.max_bytes}"
        )
    if bytes(data[:3]) != b"\xff\xd8\xff":
        return None
    try:
        height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
    except (ValueError, RuntimeError, KeyError):  # KeyError: cut before its colours are stated
        return None
    _check_pixels(width, height, limits)
    return width, height


def _opened(data: bytes | memoryview, limits: Limits) -> Image.Image:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("image_too_large", str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError):
        raise BadImage(
            "not_an_image", f"an image does not begin like one of {', '.join(FORMATS)}"
        ) from None
    _check_pixels(*image.size, limits)
    return image


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise BadImage("not_an_image", f"an image has {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise BadImage(
            "image_too_large",
            f"an image has {width} x {height} pixels, the limit is {limits.max_pixels}",
        )


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
