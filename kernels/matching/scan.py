"""Compiled: characters to tokens, keys of tokens, probing.

A token is a maximal run of run characters, or one other character; white space is the gap between
tokens. Whether an edge of an occurrence is void depends on the two characters beside it alone, so an
occurrence is a run of whole tokens whose inner joins (gap or none) agree.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.intrinsics import load64

RUN, SINGLE, SPACE, WRAPPED, COMPLEX = 0, 1, 2, 3, 4
INVALID = 0xD800

U0, U1, U3 = np.uint64(0), np.uint64(1), np.uint64(3)
U28, U29, U32, U36, U56 = (np.uint64(n) for n in (28, 29, 32, 36, 56))
LOW32 = np.uint64(0xFFFFFFFF)
LONG = np.uint64(1 << 63)
MIX_1 = np.uint64(0x9E3779B97F4A7C15)
MIX_2 = np.uint64(0xBF58476D1CE4E5B9)
NO_STEP = np.uint64(0xFFFFFFFF)
EMPTY_TOKEN = np.uint64(0)
EMPTY_PAIR = np.uint64(0xFFFFFFFFFFFFFFFF)
SPACE_KEY = np.uint64(0x20 | 1 << 56)
SHORT_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(8)], np.uint64)


@njit(nogil=True, inline="always")
def mix(value):
    """A bijection of 64-bit words whose high and low halves depend on every bit."""
    value = (value ^ (value >> U32)) * MIX_1
    value = (value ^ (value >> U29)) * MIX_2
    return value ^ (value >> U32)


@njit(nogil=True, inline="always")
def home(hashed, spread):
    """Where probing for a mixed key starts in a table of `spread` places (and some behind)."""
    return np.int64(((hashed & LOW32) * spread) >> U32)


@njit(nogil=True)
def key_of(raw, begin, end, seed):
    """Key of a token: up to 7 bytes are the key itself, longer ones are hashed to 63 bits.

    `raw` must have 8 bytes behind `end`.
    """
    length = end - begin
    if length <= 7:
        return (load64(raw, begin) & SHORT_MASKS[length]) | (np.uint64(length) << U56)
    value = seed ^ np.uint64(length)
    at = begin
    while at + 8 < end:
        value = mix(value ^ load64(raw, at))
        at += 8
    return mix(value ^ load64(raw, end - 8)) | LONG


@njit(nogil=True)
def decode(raw, i, end):
    """(code point, bytes) at i; a byte that starts no valid UTF-8 is (INVALID, 1)."""
    b0 = raw[i]
    if b0 < 0x80:
        return np.int64(b0), 1
    if 0xE0 <= b0 <= 0xEF:
        if i + 2 < end and raw[i + 1] & 0xC0 == 0x80 and raw[i + 2] & 0xC0 == 0x80:
            point = np.int64(b0 & 0x0F) << 12 | np.int64(raw[i + 1] & 0x3F) << 6
            point |= np.int64(raw[i + 2] & 0x3F)
            if point >= 0x800 and not 0xD800 <= point <= 0xDFFF:
                return point, 3
    elif 0xC2 <= b0 <= 0xDF:
        if i + 1 < end and raw[i + 1] & 0xC0 == 0x80:
            return np.int64(b0 & 0x1F) << 6 | np.int64(raw[i + 1] & 0x3F), 2
    elif (
        0xF0 <= b0 <= 0xF4
        and i + 3 < end
        and raw[i + 1] & 0xC0 == 0x80
        and raw[i + 2] & 0xC0 == 0x80
        and raw[i + 3] & 0xC0 == 0x80
    ):
        point = np.int64(b0 & 0x07) << 18 | np.int64(raw[i + 1] & 0x3F) << 12
        point |= np.int64(raw[i + 2] & 0x3F) << 6 | np.int64(raw[i + 3] & 0x3F)
        if 0x10000 <= point <= 0x10FFFF:
            return point, 4
    return np.int64(INVALID), 1


@njit(nogil=True, inline="always")
def kind_of(point, numbers, pages):
    """Class of a code point."""
    return pages[np.int64(numbers[point >> 8]) * 256 + (point & 255)]


@njit(nogil=True, inline="always")
def pair_key(node, step):
    """Key of the node that follows `node` by `step` (a token's place and join)."""
    return np.uint64(node) << U32 | step
