"""Stable row ids and the randomness derived from them.

Ids are 16 bytes (``pa.binary(16)``) of BLAKE2b over length-prefixed parts. Everything random in
the project is ``uniform(seed, epoch, id, salt)``: a pure function, so order, workers and time
cannot change an outcome (DESIGN: determinism).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

HASH_NAME = "blake2b-128"
"""Name of the id hash as manifests state it."""

ID_TYPE = pa.binary(16)
"""Arrow type of every id."""

SALT_PICK = 1
"""Salt for picking one text of an image."""

SALT_DRAW = 2
"""Salt for drawing a pair."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK32 = np.uint64(0xFFFFFFFF)


def id128(*parts: bytes) -> bytes:
    """Return the 128-bit hash of ``parts``; each is length-prefixed, so (ab, c) != (a, bc)."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.digest()


def image_id(
    url: str | None = None, sha256: bytes | None = None, key: bytes | str | None = None
) -> bytes:
    """Return the id of an image named by exactly one of URL, SHA-256 of its bytes, or a key.

    The three kinds hash into separate domains. Raises ValueError unless exactly one is given.
    """
    if (url is not None) + (sha256 is not None) + (key is not None) != 1:
        raise ValueError("image_id needs exactly one of url, sha256 and key")
    if url is not None:
        return id128(b"image:url", url.encode("utf-8", "surrogatepass"))
    if sha256 is not None:
        return id128(b"image:sha256", sha256)
    assert key is not None
    return id128(b"image:key", key.encode() if isinstance(key, str) else key)


def pair_id(image: bytes, text: str | bytes) -> bytes:
    """Return the id of the pair (image id, text)."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return id128(b"pair", image, raw)


def id_array(ids: Iterable[bytes]) -> pa.Array:
    """Return ids as ``pa.binary(16)``."""
    return pa.array(list(ids), ID_TYPE)


def image_ids_of_urls(urls: pa.Array | pa.ChunkedArray) -> pa.Array:
    """``image_id(url=...)`` of each value (about 1M/s); null stays null."""
    return _hash_column(urls, b"image:url")


def pair_ids(images: pa.Array | pa.ChunkedArray, texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """``pair_id`` of each row of two equally long columns without nulls."""
    prefix = hashlib.blake2b(digest_size=16)
    for fixed in (len(b"pair").to_bytes(8, "little"), b"pair", (16).to_bytes(8, "little")):
        prefix.update(fixed)
    out = bytearray()
    raw = _as_binary(texts)
    for image, text in zip(_values(images), _values(raw), strict=True):
        h = prefix.copy()
        h.update(image)
        h.update(len(text).to_bytes(8, "little"))
        h.update(text)
        out += h.digest()
    return pa.FixedSizeBinaryArray.from_buffers(ID_TYPE, len(raw), [None, pa.py_buffer(out)])


def _hash_column(column: pa.Array | pa.ChunkedArray, domain: bytes) -> pa.Array:
    prefix = hashlib.blake2b(digest_size=16)
    prefix.update(len(domain).to_bytes(8, "little"))
    prefix.update(domain)
    out: list[bytes | None] = []
    for value in _values(_as_binary(column)):
        if value is None:
            out.append(None)
            continue
        h = prefix.copy()
        h.update(len(value).to_bytes(8, "little"))
        h.update(value)
        out.append(h.digest())
    return pa.array(out, ID_TYPE)


def _as_binary(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return column if pa.types.is_binary(column.type) else column.cast(pa.binary())


def _values(column: pa.Array | pa.ChunkedArray) -> list:
    return column.to_pylist()


def id_words(ids: pa.Array | pa.ChunkedArray | np.ndarray) -> npt.NDArray[np.uint64]:
    """View ids without nulls as little-endian words: uint64[n, 2]."""
    if isinstance(ids, np.ndarray):
        raw = np.ascontiguousarray(ids)
        return raw.view(np.uint8).reshape(-1, 16).view("<u8")
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if array.null_count:
        raise ValueError("ids must not be null")
    if array.type != ID_TYPE:
        array = array.cast(ID_TYPE)
    data = array.buffers()[1]
    if data is None or len(array) == 0:
        return np.empty((0, 2), np.uint64)
    words = np.frombuffer(
        memoryview(data), np.uint8, count=len(array) * 16, offset=array.offset * 16
    )
    return words.view("<u8").reshape(-1, 2)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser, element-wise; takes and may overwrite uint64 values."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _word(value: int) -> npt.NDArray[np.uint64]:
    return np.array([value & 0xFFFFFFFFFFFFFFFF], np.uint64)


def uniform(
    seed: int, epoch: int, ids: pa.Array | pa.ChunkedArray | np.ndarray, salt: int
) -> npt.NDArray[np.float64]:
    """Return float64[n] in [0, 1): a pure function of (seed, epoch, id, salt) for each id.

    splitmix64's finaliser is chained over seed, epoch, salt and both halves of the id; the top
    53 bits become the number.
    """
    words = id_words(ids)
    with np.errstate(over="ignore"):
        state = _mix(_word(seed) + _GOLDEN)
        state = _mix((state ^ _word(epoch)) + _GOLDEN)
        state = _mix((state ^ _word(salt)) + _GOLDEN)
        h = _mix((words[:, 0] ^ state) + _GOLDEN)
        h = _mix((words[:, 1] ^ h) + _GOLDEN)
    return (h >> np.uint64(11)).astype(np.float64) * 2.0**-53


def id_sum(ids: pa.Array | pa.ChunkedArray | np.ndarray) -> int:
    """Return the order-free hash of a multiset of ids: the sum mod 2**128 of mixed ids.

    Each id is mixed first (a permutation of 128 bits), so ids that differ in a pattern do not
    cancel; lost, doubled and swapped-in rows all change the sum.
    """
    words = id_words(ids)
    with np.errstate(over="ignore"):
        a = words[:, 0] ^ _mix(words[:, 1] + _GOLDEN)
        b = words[:, 1] ^ _mix(a + np.uint64(0xD1B54A32D192ED03))
        a = a ^ _mix(b + np.uint64(0x8CB92BA72F3D8DD7))
    return (_exact_sum(a) + (_exact_sum(b) << 64)) % (1 << 128)


def _exact_sum(x: npt.NDArray[np.uint64]) -> int:
    # Halves of 32 bits: exact for up to 2**32 rows.
    return int((x & _MASK32).sum()) + (int((x >> np.uint64(32)).sum()) << 32)
