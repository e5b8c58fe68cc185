"""The resizing child process, with bytes on which it crashes."""

from __future__ import annotations

import os
import sys

from curation.fetch import resize_child

_call = resize_child.Resize.__call__


def crash_or_resize(self: resize_child.Resize, data: bytes) -> bytes:
    """As the child does, unless the bytes say otherwise."""
    if data.startswith(b"CRASH"):
        os.abort()
    return _call(self, data)


if __name__ == "__main__":
    resize_child.Resize.__call__ = crash_or_resize  # type: ignore[method-assign]
    resize_child.main(sys.argv[1:])
