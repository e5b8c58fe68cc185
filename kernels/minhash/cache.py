"""Where this package's compiled code is kept: beside the matcher's, in a folder for these sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernels.matching import cache as places

_HERE = Path(__file__).parent


@contextmanager
def kept() -> Iterator[None]:
    """Functions decorated inside keep their machine code in a folder named by all sources' digest."""
    from numba.core import config

    before = config.CACHE_DIR
    found = hashlib.blake2b(digest_size=8)
    for path in sorted(_HERE.glob("*.py")):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    config.CACHE_DIR = str(places.folder(before) / f"minhash-{found.hexdigest()}")
    try:
        yield
    finally:
        config.CACHE_DIR = before
