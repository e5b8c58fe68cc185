"""The child process that turns untrusted images into small JPEGs; started by `thumbnails` only.

On both pipes, little endian: a request is a length (u32) and that many bytes; an answer is width,
height (u16 each), a length (u32) and the JPEG, or the error text where width is 0.
"""

from __future__ import annotations

import io
import resource
import struct
import sys
import warnings

from PIL import Image, ImageOps

ANSWER = struct.Struct("<HHI")
_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]


def thumbnail(data: bytes, side: int) -> tuple[int, int, bytes]:
    """Width, height and JPEG of the picture as a viewer shows it, on white, within `side`."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as source:
        source.draft("RGB", (2 * side, 2 * side))
        image: Image.Image = ImageOps.exif_transpose(source)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        small = image.convert("RGB")
    small.info.clear()  # a comment of the file would be written again
    out = io.BytesIO()
    small.save(out, "JPEG", quality=72, optimize=True)
    return small.width, small.height, out.getvalue()


def main(side: int, max_pixels: int, memory: int) -> None:
    """Bound this process, then answer until the parent closes its end."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := requests.read(4)) == 4:
        data = requests.read(struct.unpack("<I", head)[0])
        try:
            width, height, body = thumbnail(data, side)
        except Exception as error:  # whatever hostile bytes raise is the answer, not our end
            width, height, body = 0, 0, (str(error) or type(error).__name__).encode()[:300]
        answers.write(ANSWER.pack(width, height, len(body)) + body)
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
