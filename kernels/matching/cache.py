"""Where compiled code is kept between processes.

numba keeps machine code beside the module that it compiles and looks at that module's time stamp
only, not at the modules it takes functions from. Here the folder is named by a digest of all
sources, and is the first that can be written of: $NUMBA_CACHE_DIR, this package's __pycache__, the
user's cache folder, a private folder in the temporary one. A package folder that was warmed and then
made read-only (an image) is copied to the next place instead of being compiled again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HERE = Path(__file__).parent


def digest() -> str:
    """Digest of this package's sources."""
    found = hashlib.blake2b(digest_size=8)
    for path in sorted(_HERE.glob("*.py")):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private(folder: Path) -> bool:
    """Whether a folder in a shared place is ours alone: machine code is read from it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def folder(configured: str = "") -> Path:
    """The folder for this version's machine code; `configured` is numba's own setting."""
    name = f"headrace-{digest()}"
    packaged = _HERE / "__pycache__" / name
    if configured and _writable(Path(configured) / name):
        return Path(configured) / name
    if _writable(packaged):
        return packaged
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = Path(home) / "headrace"
    if not _writable(place):
        place = Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}"
        if not _private(place):
            place = Path(tempfile.mkdtemp(prefix="headrace-"))
    if packaged.is_dir() and not (place / name).exists():
        _copy(packaged, place / name)
    return place / name


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that another process sees it whole or not at all."""
    part = Path(tempfile.mkdtemp(dir=target.parent))
    with suppress(OSError):
        shutil.copytree(source, part, dirs_exist_ok=True)
        # If another process was first, its copy serves.
        part.rename(target)
    shutil.rmtree(part, ignore_errors=True)


@contextmanager
def kept() -> Iterator[None]:
    """Functions decorated inside keep their machine code in `folder`."""
    from numba.core import config

    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder(before))
    try:
        yield
    finally:
        config.CACHE_DIR = before
