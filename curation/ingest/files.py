"""Files of an input: finding, pinning, and reading what was pinned and nothing else.

A pin is (path, bytes, checksum): BLAKE2b-256 of the content on disks, the ETag on object stores.
A folder of images is one input, pinned by a checksum over the pins of its files. Beside the
checksum a file has a *stamp* (inode and time of change, or the ETag): while the stamp is the
same, nothing is hashed again; when it is not, the checksum decides.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa

from schemas.errors import InputError, StorageError

CHUNK = 4 * 2**20
SMALL_CHUNK = 2**16


class Damaged(Exception):
    """The content of a file cannot be decoded any further; the message says where and why."""


@dataclass(frozen=True)
class File:
    """One file as found: ``path`` (URL or absolute path), size in bytes, and its stamp."""

    path: str
    bytes: int
    stamp: str


@dataclass(frozen=True)
class Pin:
    """One pinned input, as manifests record it. ``checksum`` names its kind: ``kind:value``."""

    path: str
    bytes: int
    checksum: str

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"path": self.path, "bytes": self.bytes, "checksum": self.checksum}


def _filesystem(path: str) -> tuple[Any, str]:
    import fsspec  # not at the top: readers of local files need none of it

    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise InputError(f"{path}: no reader for this kind of address ({error})") from None


def is_remote(path: str) -> bool:
    """Whether ``path`` is an address (``s3://...``) and not a file of this machine."""
    return "://" in path and not path.startswith("file://")


def _local(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path.removeprefix("file://")))


def _stamp(info: Mapping[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "created"):
        if info.get(key):
            return f"{key.lower()}:{str(info[key]).strip(chr(34))}"
    return f"size:{info.get('size')}"


def look(path: str, setting: str = "the input option") -> File:
    """Size and stamp of one file. Raises InputError, which names the setting, if it is absent or not a
    file."""
    try:
        if is_remote(path):
            fs, key = _filesystem(path)
            info = fs.info(key)
            if info.get("type") == "directory":
                raise InputError(f"{path} is a directory where a file is needed")
            return File(path, int(info["size"]), _stamp(info))
        stat = os.stat(_local(path))
        if not os.path.isfile(_local(path)):
            raise InputError(f"{path} is not a regular file; give files, directories or globs")
        return File(_local(path), stat.st_size, f"stat:{stat.st_ino}:{stat.st_mtime_ns}")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check {setting}") from None
    except PermissionError as error:
        raise InputError(f"{path}: not readable ({error.strerror or error})") from None


def directory_path(path: str) -> str:
    """A directory as its files' paths begin: absolute, or a URL without a slash at its end."""
    return path.rstrip("/") if is_remote(path) else _local(path)


def is_directory(path: str) -> bool:
    """Whether a path names a directory (or a prefix of an object store)."""
    if is_remote(path):
        fs, key = _filesystem(path)
        return bool(fs.isdir(key))
    return os.path.isdir(_local(path))


def exists(path: str) -> bool:
    """Whether a path names a file or directory."""
    if is_remote(path):
        fs, key = _filesystem(path)
        return bool(fs.exists(key))
    return os.path.exists(_local(path))


def walk(directory: str) -> list[File]:
    """All files under a directory by path, without names that begin with a dot or ``_``."""
    found = []
    if is_remote(directory):
        fs, key = _filesystem(directory)
        protocol = directory.split("://")[0]
        root = key.rstrip("/")
        for name, info in fs.find(root, detail=True).items():
            if _visible(name[len(root) :]):
                found.append(File(f"{protocol}://{name}", int(info["size"]), _stamp(info)))
    else:
        root = _local(directory)
        for folder, folders, names in os.walk(root, onerror=_refuse):
            folders[:] = [name for name in folders if _visible(name)]
            paths = [os.path.join(folder, name) for name in names if _visible(name)]
            found += [look(path) for path in paths if os.path.isfile(path)]
    return sorted(found, key=lambda file: file.path)


def _visible(relative: str) -> bool:
    return not any(part.startswith((".", "_")) for part in PurePosixPath(relative).parts)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: not readable ({error.strerror})") from None


def matches(pattern: str) -> list[str]:
    """Paths that match a glob, sorted; ``**`` crosses directories."""
    if is_remote(pattern):
        fs, key = _filesystem(pattern)
        protocol = pattern.split("://")[0]
        return sorted(f"{protocol}://{name}" for name in fs.glob(key))
    return sorted(glob.glob(_local(pattern), recursive=True))


def open_raw(path: str) -> BinaryIO:
    """The bytes of a file, seekable. Raises InputError or StorageError."""
    try:
        if is_remote(path):
            fs, key = _filesystem(path)
            return cast(BinaryIO, fs.open(key, "rb"))
        return open(_local(path), "rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file any more; it was there when pinned") from None
    except PermissionError as error:
        raise InputError(f"{path}: not readable ({error.strerror or error})") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened ({error})") from None


def checksum(file: File) -> str:
    """The checksum of a file: its ETag on object stores that have one, else BLAKE2b-256."""
    if file.stamp.startswith("etag:"):
        return file.stamp
    digest = hashlib.blake2b(digest_size=32)
    with open_raw(file.path) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return f"blake2b-256:{digest.hexdigest()}"


def pin(files: Iterable[File], known: Mapping[str, str] | None = None) -> list[Pin]:
    """Pin files, several at a time. ``known`` maps :func:`memory_key` to earlier checksums."""
    known = known or {}

    def one(file: File) -> Pin:
        return Pin(file.path, file.bytes, known.get(memory_key(file)) or checksum(file))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, files))


def memory_key(file: File) -> str:
    """Under what a checksum may be remembered: the file's path, size and stamp."""
    return f"{file.path}\n{file.bytes}\n{file.stamp}"


def pin_folder(root: str, pins: Iterable[Pin]) -> Pin:
    """One pin for a folder: over the relative path, size and checksum of each of its files."""
    digest, total = hashlib.blake2b(digest_size=32), 0
    for one in pins:
        relative = one.path.removeprefix(root).lstrip("/")
        digest.update(
            f"{relative}\0{one.bytes}\0{one.checksum}\n".encode("utf-8", "surrogateescape")
        )
        total += one.bytes
    return Pin(root, total, f"blake2b-256:{digest.hexdigest()}")


def unchanged(file: File, expected: str) -> None:
    """Raise InputError unless the file is still what was pinned (``expected`` is its checksum)."""
    now = look(file.path)
    if now.bytes == file.bytes and now.stamp == file.stamp:
        return
    if now.bytes == file.bytes and checksum(now) == expected:
        return
    raise InputError(
        f"{file.path} has changed since it was pinned ({file.bytes} bytes, {expected}; now "
        f"{now.bytes} bytes): start again to pin what is there now, and keep inputs still"
    )


class _Decoded(io.RawIOBase):
    """A decompressed stream: faults of decoding become Damaged, of the storage StorageError."""

    def __init__(self, inner: Any, raw: BinaryIO, kind: str) -> None:
        self._raw, self._kind = raw, kind
        # read1 gives what precedes a fault; read would throw that away with the fault.
        self._read = getattr(inner, "read1", inner.read) if inner is not raw else raw.read
        self._most = SMALL_CHUNK if isinstance(inner, pa.NativeFile) else CHUNK
        self._given = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, often fewer; none at the end."""
        try:
            data = self._read(self._most if size < 0 else min(size, self._most))
        except (EOFError, zlib.error, lzma.LZMAError, pa.ArrowInvalid, ValueError) as error:
            raise Damaged(self._message(error)) from None
        except OSError as error:
            if error.errno is not None:
                raise StorageError(f"reading failed: {error}") from None
            raise Damaged(self._message(error)) from None
        self._given += len(data)
        return bytes(data)

    def readinto(self, buffer: Any) -> int:
        """As :meth:`read`, into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _message(self, error: Exception) -> str:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"the {self._kind} stream cannot be read past byte {self._given} ({text})"

    def close(self) -> None:
        self._raw.close()
        super().close()


COMPRESSIONS: dict[str, tuple[bytes, Callable[[BinaryIO], Any]]] = {
    "gzip": (b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    "zstd": (b"\x28\xb5\x2f\xfd", lambda raw: pa.CompressedInputStream(cast(Any, raw), "zstd")),
    "bzip2": (b"BZh", bz2.BZ2File),
    "xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
}


def compression(head: bytes) -> str:
    """Name of the compression that a file's first bytes show, or ""."""
    for name, (magic, _) in COMPRESSIONS.items():
        if head.startswith(magic):
            return name
    return ""


def open_decoded(path: str) -> BinaryIO:
    """The content of a file, decompressed by what its first bytes say. Reads raise Damaged."""
    raw = open_raw(path)
    name = compression(raw.read(8))
    raw.seek(0)
    inner = COMPRESSIONS[name][1](raw) if name else raw
    return cast(BinaryIO, _Decoded(inner, raw, name or "file"))


def beginning(stream: BinaryIO, size: int) -> bytes:
    """The first ``size`` bytes of a stream, or what there is. Raises Damaged if that is nothing."""
    data = b""
    try:
        while len(data) < size and (more := stream.read(size - len(data))):
            data += more
    except Damaged:
        if not data:
            raise
    return data
