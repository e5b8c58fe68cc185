"""Indexes on this machine's disk: built once, whole or not at all, shared by all ranks of a host.

They lie in ``$HEADRACE_CACHE``, else ``$XDG_CACHE_HOME/headrace``, else ``~/.cache/headrace``. One
process builds while the others wait for its lock; a builder that dies leaves nothing that counts.
Deleting the folder costs the time of building anew and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.errors import StorageError

_TEMPORARY = ".tmp-"


def folder() -> Path:
    """Return the folder of the indexes."""
    if chosen := os.environ.get("HEADRACE_CACHE"):
        return Path(chosen) / "packing"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "headrace" / "packing"


def built(kind: str, facts: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the folder of the index that ``facts`` (JSON values) name; ``build`` fills a new one.

    StorageError if the cache cannot be written, and what ``build`` raises.
    """
    name = f"{kind}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}"
    place = folder()
    target = place / name
    if target.is_dir():
        return target
    try:
        place.mkdir(parents=True, exist_ok=True)
        with open(place / f"{name}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                _fill(target, build)
    except OSError as error:
        raise StorageError(
            f"cannot write the index of the token data to {place} ({error}): free space there, or set "
            "HEADRACE_CACHE to another folder"
        ) from error
    return target


def _fill(target: Path, build: Callable[[Path], None]) -> None:
    """Build beside the target and rename; under the target's lock."""
    for left in target.parent.glob(f"{_TEMPORARY}{target.name}-*"):  # of a builder that was killed
        shutil.rmtree(left, ignore_errors=True)
    temporary = target.parent / f"{_TEMPORARY}{target.name}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        build(temporary)
        for file in temporary.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
