"""The decoder's child process, with bytes on which it crashes, hangs, or takes all memory."""

from __future__ import annotations

import os
import sys
import time

from curation import image_child

_look = image_child.look


def look(data: bytes) -> bytes:
    """As the decoder does, unless the bytes say otherwise."""
    if data.startswith(b"CRASH"):
        os.abort()
    if data.startswith(b"HANG"):
        time.sleep(600)
    if data.startswith(b"EXIT"):
        os._exit(0)
    if data.startswith(b"NOISE"):
        os.write(1, b"x" * 10)
        os._exit(1)
    if data.startswith(b"MEMORY"):
        try:
            bytearray(64 * 2**30)
        except MemoryError as error:
            return image_child.failed(data, error)
    return _look(data)


if __name__ == "__main__":
    image_child.look = look
    image_child.main(int(sys.argv[1]), int(sys.argv[2]))
