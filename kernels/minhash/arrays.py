"""Texts and sets of hashes to MinHash signatures."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kernels.minhash import words
from kernels.minhash.reference import BASE, MASK, parameters
from schemas.errors import InputError, UsageError

Words = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int64]

MAX_WORDS = 64
"""Words of the longest n-gram."""


@cache
def _arrays() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], Words]:
    starts, entries = words.tables()
    plain = np.zeros(256, np.uint8)
    for byte in range(128):
        folded = words.fold(chr(byte))
        plain[byte] = 0 if folded in ("", " ") else ord(folded)
    return plain, starts, entries


@cache
def tables() -> Words:
    """Addresses of the character tables; made once in a process, in a third of a second."""
    return np.array([array.ctypes.data for array in _arrays()], np.uint64)


def powers(count: int) -> Words:
    """The first powers of the n-gram polynomial's base."""
    return np.array([pow(BASE, i, MASK + 1) for i in range(count)], np.uint64)


def buffers(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], Offsets, Offsets]:
    """(bytes, starts [n], ends [n]) of a string or binary array; the text is not copied.

    Nulls have start == end. Raises InputError for another type.
    """
    kind = texts.type
    if not any(is_type(kind) for is_type in _TEXT_TYPES):
        raise InputError(f"texts of type {kind}: a string or binary column is needed; cast it")
    wide: Any = texts.cast(pa.large_binary())
    if len(wide) == 0:
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64)
    _, stored, raw = wide.buffers()
    offsets = np.frombuffer(stored, np.int64)[wide.offset : wide.offset + len(wide) + 1]
    data = np.frombuffer(raw, np.uint8) if raw else np.empty(0, np.uint8)
    starts, ends = offsets[:-1], offsets[1:]
    if wide.null_count:
        ends = np.where(wide.is_null().to_numpy(zero_copy_only=False), starts, ends)
    return data, starts, ends


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)


def work_space(starts: Offsets, ends: Offsets, *kinds: type[np.generic]) -> list[np.ndarray]:
    """An array of each kind with room for the words of the longest text (a letter and a space each,
    and one); pages that are not written to take no memory."""
    room = int((ends - starts).max(initial=0)) // 2 + 2
    return [np.empty(room, kind) for kind in kinds]


def check_words(n: int) -> None:
    """Raise UsageError unless n-grams of `n` words can be made."""
    if not 1 <= n <= MAX_WORDS:
        raise UsageError(f"n-grams of {n} words: give 1 to {MAX_WORDS}")


def chunks(texts: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """The arrays of a column."""
    return texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]


def shingles(texts: pa.Array | pa.ChunkedArray, words: int = 5) -> tuple[Words, Offsets]:
    """Hashes of all n-grams of each text, in order, repeated ones too.

    `words` is n; `words.words_of` and `words.grams` say what counts. A text with fewer words than an
    n-gram gives one hash, of all its words; one without words (or null) none. Returns (hashes uint64,
    offsets int64 [n + 1]): those of text i are hashes[offsets[i]:offsets[i + 1]]. Linear time.
    """
    from kernels.minhash import compiled

    check_words(words)
    base = powers(2 * words)
    parts: list[Words] = []
    counts = [np.zeros(1, np.int64)]
    for chunk in chunks(texts):
        data, starts, ends = buffers(chunk)
        found = np.empty(int(((ends - starts) // 2 + 1).sum()), np.uint64)
        offsets = np.zeros(len(chunk) + 1, np.int64)
        space = work_space(starts, ends, np.uint64, np.uint8)
        compiled.shingles_of_texts(
            data, starts, ends, tables(), 2 * words, base, *space, found, offsets
        )
        parts.append(found[: offsets[-1]].copy())
        counts.append(np.diff(offsets))
    hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    return hashes, np.cumsum(np.concatenate(counts))


def sketch(hashes: Words, offsets: Offsets, slots: int = 112, seed: int = 1) -> Signatures:
    """Signatures uint32 [n, slots] of sets of hashes, set i being hashes[offsets[i]:offsets[i + 1]].

    The hashes must be well mixed in all 64 bits, as those of `shingles` are; order and repetition do
    not matter. An empty set has `reference.EMPTY` in all slots. The share of slots in which two
    signatures are equal estimates the sets' Jaccard similarity, without bias.
    """
    from kernels.minhash import compiled

    numbers = _numbers(slots, seed)
    hashes = np.ascontiguousarray(hashes, np.uint64)
    offsets = np.ascontiguousarray(offsets, np.int64)
    out = np.empty((len(offsets) - 1, slots), np.uint32)
    room = np.empty(int(np.diff(offsets).max(initial=0)), np.uint32)
    compiled.sketch_rows(hashes, offsets, numbers, room, out)
    return out


def signatures(
    texts: pa.Array | pa.ChunkedArray, words: int = 5, slots: int = 112, seed: int = 1
) -> Signatures:
    """`sketch` of the `shingles` of texts: uint32 [n, slots]; `reference.EMPTY` without words.

    Work space of about 12 bytes for a byte of the longest text. Raises InputError for a column of
    another type, UsageError for impossible numbers.
    """
    from kernels.minhash import compiled

    check_words(words)
    numbers, base = _numbers(slots, seed), powers(2 * words)
    parts = [np.empty((0, slots), np.uint32)]
    for chunk in chunks(texts):
        data, starts, ends = buffers(chunk)
        out = np.empty((len(chunk), slots), np.uint32)
        space = work_space(starts, ends, np.uint64, np.uint8, np.uint64, np.uint32)
        compiled.sketch_texts(data, starts, ends, tables(), 2 * words, base, *space, numbers, out)
        parts.append(out)
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def band_hashes(found: Signatures, bands: int = 14) -> Words:
    """Hashes uint64 [n, bands] of equal parts of signatures uint32 [n, slots].

    Two texts are candidates if a band of theirs is equal: for Jaccard similarity s and bands of r
    slots with the probability 1 - (1 - s^r)^bands. Hashes of different bands differ.
    """
    from kernels.minhash import compiled

    if bands < 1 or found.shape[1] % bands:
        raise UsageError(f"{found.shape[1]} slots do not make {bands} bands: give a divisor")
    out = np.empty((len(found), bands), np.uint64)
    compiled.band_rows(np.ascontiguousarray(found, np.uint32), out)
    return out


def components(first: Offsets, second: Offsets, nodes: int) -> Offsets:
    """The smallest node of each node's connected component, int64 [nodes], in a graph of nodes below
    `nodes` with the edges (first[e], second[e]); the order of the edges does not matter."""
    from kernels.minhash import compiled

    parents = np.arange(nodes)
    compiled.join(np.ascontiguousarray(first), np.ascontiguousarray(second), parents)
    return parents


@cache
def _numbers(slots: int, seed: int) -> Words:
    if not 1 <= slots <= 4096:
        raise UsageError(f"signatures of {slots} slots: give 1 to 4096")
    return np.array(parameters(slots, seed), np.uint64)
