"""Where compiled code of packages beside the matcher is kept: beside the matcher's, by their sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernels.matching import cache as places


@contextmanager
def kept(package: Path) -> Iterator[None]:
    """Functions decorated inside keep their machine code in a folder named by the digest of a package's
    sources; ``package`` is its folder."""
    from numba.core import config

    before = config.CACHE_DIR
    found = hashlib.blake2b(digest_size=8)
    for path in sorted(package.glob("*.py")):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    config.CACHE_DIR = str(places.folder(before) / f"{package.name}-{found.hexdigest()}")
    try:
        yield
    finally:
        config.CACHE_DIR = before
