"""One storage over local disk, ``s3://``, ``gs://``, ``memory://`` and other fsspec protocols.

The only writing primitive that correctness rests on is the exclusive create: the object appears
whole and durable, or not at all, and never replaces another. Listings serve ``verify`` and
clean-up only.
"""

from __future__ import annotations

import functools
import json
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from schemas.errors import UsageError

TEMPORARY = ".headrace/tmp"
"""Where a local dataset keeps files that are not created yet."""


class Backend(Protocol):
    """What a storage needs of a protocol; paths are absolute in the protocol's own terms."""

    def read_bytes(self, path: str) -> bytes:
        """Return all bytes; FileNotFoundError if absent."""
        ...

    def open_input(self, path: str) -> BinaryIO:
        """Open for seekable reading."""
        ...

    def size(self, path: str) -> int:
        """Return the bytes; FileNotFoundError if absent."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Create exclusively and durably; False if it exists."""
        ...

    def create_from_file(self, path: str, source: Path, *, consume: bool) -> bool:
        """Create from a local file; with consume the file is gone after."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write whole, over what is there."""
        ...

    def delete(self, path: str) -> None:
        """Delete; a missing object is fine."""
        ...

    def list(self, path: str) -> list[str]:
        """Return the full paths below a directory."""
        ...

    def fetch(self, path: str, target: Path) -> None:
        """Copy to a local file."""
        ...

    def scratch(self, path: str) -> Path:
        """Return an unused local path for a file to be stored below path's dataset."""
        ...

    def clean(self, path: str) -> None:
        """Delete what dead writers left in the temporary directory."""
        ...


@dataclass(frozen=True)
class Storage:
    """A root (``url``, no trailing slash) below which keys name objects by relative paths.

    ``options`` are those of the fsspec file system, as JSON. Picklable and cheap: connections are
    made on first use in each process. ``OSError`` becomes ``StorageError`` naming path and fix,
    except that reads raise ``FileNotFoundError``.
    """

    url: str
    options: str = "{}"

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        """Whether this is a directory of this machine."""
        return "://" not in self.url

    @property
    def name(self) -> str:
        """The last component of the root: the dataset's name."""
        return posixpath.basename(self.url)

    def at(self, *parts: str) -> Storage:
        """Return the storage rooted at a sub-path."""
        return Storage(self.path("/".join(parts)), self.options)

    def sibling(self, name: str) -> Storage:
        """Return the storage beside this one."""
        return Storage(posixpath.join(posixpath.dirname(self.url), name), self.options)

    def path(self, key: str) -> str:
        """Return the full path of a key; UsageError for one that leaves the root."""
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise UsageError(
                f"{key!r} is not a path below {self.url}; use relative paths without .."
            )
        return f"{self.url.rstrip('/')}/{key}" if key else self.url

    def local_path(self, key: str) -> Path | None:
        """Return the path of a key on this machine's disk, None for remote storage."""
        return Path(self.path(key)) if self.is_local else None

    def read_bytes(self, key: str) -> bytes:
        """Return an object's bytes; FileNotFoundError if absent."""
        return self._backend.read_bytes(self.path(key))

    def open_input(self, key: str) -> BinaryIO:
        """Open a seekable binary file for reading (usable by ``pyarrow.parquet``)."""
        return self._backend.open_input(self.path(key))

    def fetch(self, key: str, target: Path) -> None:
        """Copy an object to a local file."""
        self._backend.fetch(self.path(key), target)

    def exists(self, key: str) -> bool:
        """Whether an object exists."""
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """Return an object's bytes; FileNotFoundError if absent."""
        return self._backend.size(self.path(key))

    def create(self, key: str, data: bytes) -> bool:
        """Create an object, exclusively and durably; False if it exists (left untouched)."""
        return self._backend.create(self.path(key), data)

    def create_from_file(self, key: str, path: Path, *, consume: bool = False) -> bool:
        """Like ``create`` from a local file; with ``consume`` the file is moved, not copied."""
        return self._backend.create_from_file(self.path(key), path, consume=consume)

    def replace(self, key: str, data: bytes) -> None:
        """Write an object whole, whether or not it exists. Never used to commit."""
        self._backend.replace(self.path(key), data)

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is fine."""
        self._backend.delete(self.path(key))

    def list(self, prefix: str = "") -> list[str]:
        """Return the sorted keys below the directory ``prefix`` (for verify and clean-up only)."""
        start = len(self.url.rstrip("/")) + 1
        return sorted(p[start:] for p in self._backend.list(self.path(prefix)))

    def scratch(self) -> Path:
        """Return a new unused local path for a file to be consumed by ``create_from_file``.

        On local storage it lies on the same file system, outside ``data/``.
        """
        return self._backend.scratch(self.path(TEMPORARY))

    def clean_temporary(self) -> None:
        """Delete temporary files that dead writers left below this root."""
        self._backend.clean(self.path(TEMPORARY))

    @property
    def _backend(self) -> Backend:
        return _backend("" if self.is_local else self.url.split("://", 1)[0], self.options)


def storage(url: str | Path, **options: Any) -> Storage:
    """Return the storage of a URL or local path; ``options`` go to the fsspec file system."""
    text = str(url)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" not in text:
        if not text:
            raise UsageError("the path is empty; give a directory or a URL such as s3://bucket/dir")
        text = str(Path(text).expanduser().absolute())
        text = posixpath.normpath(text)
    return Storage(text.rstrip("/") or "/", json.dumps(options, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _backend(protocol: str, options: str) -> Backend:
    if not protocol:
        from schemas.storage_local import LocalBackend

        return LocalBackend()
    from schemas.storage_remote import RemoteBackend

    return RemoteBackend(protocol, json.loads(options))
