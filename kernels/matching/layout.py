"""The automaton file: a header and aligned sections, written at once, mapped to read.

Layout: 8 bytes magic, uint32 format version, uint32 length of the header, 32 bytes blake2b of the
header, the header (JSON), then sections, each padded with zeros to 4,096 bytes. The header names each
section's type, shape and offset and holds a checksum of their bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import InputError, IntegrityError, StorageError
from schemas.storage_local import translated

MAGIC = b"HRMATCH\x00"
FORMAT_VERSION = 1
ALIGN = 4096
_PREFIX = struct.Struct("<8sII32s")


def sums(data: np.ndarray) -> bytes:
    """Sums of the uint64 words of each 4,096 bytes; the last ones are taken as padded with zeros."""
    whole = len(data) // ALIGN * ALIGN
    rest = np.zeros(ALIGN if len(data) > whole else 0, np.uint8)
    rest[: len(data) - whole] = data[whole:]
    found = [
        part.view("<u8").reshape(-1, ALIGN // 8).sum(axis=1, dtype=np.uint64)
        for part in (data[:whole], rest)
    ]
    return np.concatenate(found).astype("<u8").tobytes()


def checksum(parts: Iterable[np.ndarray]) -> str:
    """blake2b over the sums of all parts.

    Sums run at memory speed, so that a file can be checked each time it is opened.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(sums(part))
    return digest.hexdigest()


def write(path: Path, header: dict[str, Any], sections: dict[str, np.ndarray]) -> None:
    """Write an automaton file; at `path` stands the whole file or what was there before.

    Raises StorageError where the folder is absent, full or not ours to write.
    """
    offset = 0
    table = {}
    parts: list[np.ndarray] = []
    for name, array in sections.items():
        table[name] = {"type": array.dtype.str, "shape": list(array.shape), "offset": offset}
        parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        offset += -(-array.nbytes // ALIGN) * ALIGN
    full = {**header, "sections": table, "bytes": offset, "checksum": checksum(parts)}
    text = json.dumps(full, sort_keys=True, ensure_ascii=False).encode()
    text += b" " * (-(_PREFIX.size + len(text)) % ALIGN)
    digest = hashlib.blake2b(text, digest_size=32).digest()
    prefix = _PREFIX.pack(MAGIC, FORMAT_VERSION, len(text), digest)
    if not path.parent.is_dir():
        raise StorageError(f"cannot write {path}: no such folder; make {path.parent} first")
    with (
        translated("write", path),
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file,
    ):
        try:
            file.write(prefix + text)
            for part in parts:
                file.write(part.data)
                file.write(bytes(-len(part) % ALIGN))
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, sections mapped read-only) of an automaton file.

    Raises InputError for a file that is no automaton or of another format version, and
    IntegrityError for one whose bytes are not those that were written.
    """
    try:
        mapped = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    raw: np.ndarray = mapped.view(np.ndarray)
    if len(raw) < _PREFIX.size or raw[:8].tobytes() != MAGIC:
        raise InputError(f"{path}: not an automaton file; build one from the metadata's entries")
    _, version, length, digest = _PREFIX.unpack(raw[: _PREFIX.size].tobytes())
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: automaton format {version}, this program reads format {FORMAT_VERSION}; "
            "build the automaton again with this program"
        )
    start = _PREFIX.size + length
    text = raw[_PREFIX.size : start].tobytes()
    if hashlib.blake2b(text, digest_size=32).digest() != digest:
        raise IntegrityError(f"{path}: damaged or cut off in its header; build or copy it again")
    header = json.loads(text)
    if len(raw) != start + header["bytes"]:
        raise IntegrityError(
            f"{path}: {len(raw)} bytes, {start + header['bytes']} expected; copy it again"
        )
    if checksum([raw[start:]]) != header["checksum"]:
        raise IntegrityError(f"{path}: its content does not match its checksum; copy it again")
    sections = {}
    for name, spec in header["sections"].items():
        kind = np.dtype(spec["type"])
        size = int(np.prod(spec["shape"], dtype=np.int64)) * kind.itemsize
        at = start + spec["offset"]
        sections[name] = raw[at : at + size].view(kind).reshape(spec["shape"])
    return header, sections
