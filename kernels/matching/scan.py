"""Compiled: characters to tokens, keys of tokens, probing.

A token is a maximal run of run characters, or one other character; white space is the gap between
tokens. Whether an edge of an occurrence is void depends on the two characters beside it alone, so an
occurrence is a run of whole tokens whose inner joins (gap or none) agree.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.memory import Int, Word, get8, get32, get64, load64

RUN, SINGLE, SPACE, WRAPPED, COMPLEX = 0, 1, 2, 3, 4
INVALID = np.int64(0xD800)

U0, U1, U6, U28, U29, U30, U32, U36, U56, U63 = (
    np.uint64(n) for n in (0, 1, 6, 28, 29, 30, 32, 36, 56, 63)
)
LOW32 = np.uint64(0xFFFFFFFF)
LONG = np.uint64(1 << 63)
MIX_1 = np.uint64(0x9E3779B97F4A7C15)
MIX_2 = np.uint64(0xBF58476D1CE4E5B9)
EMPTY = np.uint64(0)
"""Key of a free slot; no token and no pair has it."""
SPACE_KEY = np.uint64(0x20 | 1 << 56)

# A node's word: entry + 1 (or variant + 1, or where its tail lies); flags; from bit 36 on the sieve of
# its children, the first step of its tail, or (long tokens) where its bytes lie in the pool.
ENTRY_MASK = np.uint64((1 << 28) - 1)
CHILD_0, CHILD_1 = np.uint64(1 << 28), np.uint64(1 << 29)
"""The node has children joined by no space, by one space."""
NEXT_0, NEXT_1 = np.uint64(1 << 30), np.uint64(1 << 31)
"""The token is such a child of some node."""
BEFORE, AFTER = np.uint64(1 << 32), np.uint64(1 << 33)
"""The entry needs a space before, after it."""
VARIANT, TAIL = np.uint64(1 << 34), np.uint64(1 << 35)
REF_SHIFT = U36


@njit(nogil=True, inline="always")
def mix(value: Word) -> Word:
    """A bijection of 64-bit words whose high and low halves depend on every bit."""
    value = (value ^ (value >> U32)) * MIX_1
    value = (value ^ (value >> U29)) * MIX_2
    return value ^ (value >> U32)


@njit(nogil=True, inline="always")
def home(hashed: Word, spread: Word) -> Int:
    """Where probing for a mixed key starts, among `spread` buckets."""
    return np.int64(((hashed & LOW32) * spread) >> U32)


@njit(nogil=True, inline="always")
def word_at(place: Int) -> Int:
    """Index of the word of a place in a table's uint64 array.

    A bucket is one cache line: four keys, then their four words; place 4 * bucket + slot.
    """
    return 2 * (place & ~3) + 4 + (place & 3)


@njit(nogil=True)
def find(table: Int, bucket: Int, key: Word) -> Int:
    """Place of a key whose probing starts at `bucket` of the table at an address, or -1.

    The slots of a bucket fill in order, and the last bucket of a table is never full.
    """
    while True:
        k0, k1 = get64(table, 8 * bucket), get64(table, 8 * bucket + 1)
        k2, k3 = get64(table, 8 * bucket + 2), get64(table, 8 * bucket + 3)
        found = (k0 == key) | (k1 == key) | (k2 == key) | (k3 == key)
        slot = np.int64(k1 == key) + 2 * np.int64(k2 == key) + 3 * np.int64(k3 == key)
        if found or k3 == EMPTY:
            return 4 * bucket + slot if found else np.int64(-1)
        bucket += 1


@njit(nogil=True)
def key_of(begin: Int, end: Int, seed: Word) -> Word:
    """Key of the token at addresses [begin, end), behind which 8 bytes can be read.

    Up to 7 bytes are the key themselves, longer tokens are hashed to 63 bits.
    """
    length = end - begin
    if length <= 7:
        kept = np.uint64(8 * (8 - length))
        return ((load64(begin) << kept) >> kept) | (np.uint64(length) << U56)
    value = seed ^ np.uint64(length)
    at = begin
    while at + 8 < end:
        value = mix(value ^ load64(at))
        at += 8
    return mix(value ^ load64(end - 8)) | LONG


@njit(nogil=True)
def decode(raw: Int, i: Int, end: Int) -> tuple[Int, Int]:
    """(code point, bytes) of the character at raw + i, of a text that ends at raw + end.

    A byte that starts no valid UTF-8 is (INVALID, 1), as Python's `surrogateescape` has it.
    """
    b0 = get8(raw, i)
    if b0 < 0x80:
        return b0, 1
    if 0xE0 <= b0 <= 0xEF:
        if i + 2 < end:
            b1, b2 = get8(raw, i + 1), get8(raw, i + 2)
            if b1 & 0xC0 == 0x80 and b2 & 0xC0 == 0x80:
                point = (b0 & 0x0F) << 12 | (b1 & 0x3F) << 6 | (b2 & 0x3F)
                if point >= 0x800 and not 0xD800 <= point <= 0xDFFF:
                    return point, 3
    elif 0xC2 <= b0 <= 0xDF:
        if i + 1 < end:
            b1 = get8(raw, i + 1)
            if b1 & 0xC0 == 0x80:
                return (b0 & 0x1F) << 6 | (b1 & 0x3F), 2
    elif 0xF0 <= b0 <= 0xF4 and i + 3 < end:
        b1, b2, b3 = get8(raw, i + 1), get8(raw, i + 2), get8(raw, i + 3)
        if b1 & 0xC0 == 0x80 and b2 & 0xC0 == 0x80 and b3 & 0xC0 == 0x80:
            point = (b0 & 0x07) << 18 | (b1 & 0x3F) << 12 | (b2 & 0x3F) << 6 | (b3 & 0x3F)
            if 0x10000 <= point <= 0x10FFFF:
                return point, 4
    return INVALID, 1


@njit(nogil=True, inline="always")
def kind_of(point: Int, page_starts: Int, pages: Int) -> Int:
    """Class of a code point."""
    return get8(pages, get32(page_starts, point >> 8) + (point & 255))


@njit(nogil=True, inline="always")
def sieve_of(step: Int) -> Word:
    """One of the high 28 bits, chosen by a step: a node's word has those of its children."""
    spot = (((np.uint64(step) * MIX_1) >> U36) * U28) >> U28
    return U1 << (U36 + spot)


@njit(nogil=True, inline="always")
def pair_key(node: Int, step: Int) -> Word:
    """Key of the node that follows `node` by `step` (twice a token's place, plus its join)."""
    return np.uint64(node) << U32 | np.uint64(step + 1)
