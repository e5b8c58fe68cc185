"""Compiled: UTF-8 text to tokens, keys of tokens, and probing of the tables.

Token layout of a text: tokens are maximal runs of run characters, or single characters. The number
of spaces before a token is its gap; two tokens are joined by gap 0 or 1, or not at all.
"""

from __future__ import annotations

import numpy as np
from numba import njit

U0 = np.uint64(0)
U1 = np.uint64(1)
U3 = np.uint64(3)
U7 = np.uint64(7)
U8 = np.uint64(8)
U29 = np.uint64(29)
U32 = np.uint64(32)
U33 = np.uint64(33)
U56 = np.uint64(56)
LONG = np.uint64(1 << 63)
MIX_1 = np.uint64(0x9E3779B97F4A7C15)
MIX_2 = np.uint64(0xBF58476D1CE4E5B9)
EMPTY_PAIR = np.uint64(0xFFFFFFFFFFFFFFFF)

SPACE_KEY = np.uint64(0x20 | 1 << 56)
INVALID = 0xD800
"""Bytes that are no UTF-8 take the class of this code point, one byte at a time."""

RUN, SINGLE, SPACE, WRAPPED = 0, 1, 2, 3
BREAK = 2


@njit(cache=True, nogil=True, inline="always")
def mix(value):
    """A bijection of 64-bit words whose high bits depend on every bit."""
    value = (value ^ (value >> U32)) * MIX_1
    value = (value ^ (value >> U29)) * MIX_2
    return value ^ (value >> U32)


@njit(cache=True, nogil=True)
def key_of(data, start, end, seed):
    """Key of a token: up to 7 bytes are the key itself, longer ones are hashed to 63 bits."""
    length = end - start
    word = U0
    if length <= 7:
        for k in range(length):
            word |= np.uint64(data[start + k]) << np.uint64(8 * k)
        return word | (np.uint64(length) << U56)
    value = seed ^ np.uint64(length)
    position = start
    while position + 8 <= end:
        word = U0
        for k in range(8):
            word |= np.uint64(data[position + k]) << np.uint64(8 * k)
        value = mix(value ^ word)
        position += 8
    word = U0
    for k in range(end - position):
        word |= np.uint64(data[position + k]) << np.uint64(8 * k)
    return mix(value ^ word) | LONG


@njit(cache=True, nogil=True)
def decode(data, i, end):
    """(code point, bytes) at i; an invalid byte is (INVALID, 1)."""
    b0 = data[i]
    if b0 < 0x80:
        return np.int64(b0), 1
    if 0xC2 <= b0 <= 0xDF:
        if i + 1 < end and data[i + 1] & 0xC0 == 0x80:
            return np.int64(b0 & 0x1F) << 6 | np.int64(data[i + 1] & 0x3F), 2
    elif 0xE0 <= b0 <= 0xEF:
        if i + 2 < end and data[i + 1] & 0xC0 == 0x80 and data[i + 2] & 0xC0 == 0x80:
            point = np.int64(b0 & 0x0F) << 12 | np.int64(data[i + 1] & 0x3F) << 6
            point |= np.int64(data[i + 2] & 0x3F)
            if point >= 0x800 and not 0xD800 <= point <= 0xDFFF:
                return point, 3
    elif (
        0xF0 <= b0 <= 0xF4
        and i + 3 < end
        and data[i + 1] & 0xC0 == 0x80
        and data[i + 2] & 0xC0 == 0x80
        and data[i + 3] & 0xC0 == 0x80
    ):
        point = np.int64(b0 & 0x07) << 18 | np.int64(data[i + 1] & 0x3F) << 12
        point |= np.int64(data[i + 2] & 0x3F) << 6 | np.int64(data[i + 3] & 0x3F)
        if 0x10000 <= point <= 0x10FFFF:
            return point, 4
    return np.int64(INVALID), 1


@njit(cache=True, nogil=True)
def tokenise(data, start, end, numbers, pages, collapse, seed, keys, begins, ends, gaps):
    """Write the tokens of data[start:end); returns their number.

    One more gap is written: the spaces after the last token. `collapse`: a run of white space
    counts as one space and the text's ends add none; else every space counts, the text has one
    more at each end, and each space of a run but the last is also a token of its own.
    The arrays need room for 2 * (end - start) + 4 tokens.
    """
    count = 0
    pending = 0 if collapse else 1
    i = start
    while i < end:
        point, size = decode(data, i, end)
        kind = pages[np.int64(numbers[point >> 8]) * 256 + (point & 255)]
        if kind == SPACE:
            pending = 1 if collapse else pending + 1
            i += size
            continue
        begin = i
        i += size
        if kind == RUN:
            while i < end:
                point, size = decode(data, i, end)
                if pages[np.int64(numbers[point >> 8]) * 256 + (point & 255)] != RUN:
                    break
                i += size
        elif kind == WRAPPED:
            pending += 1
        for _ in range(pending - 1):
            keys[count] = SPACE_KEY
            begins[count] = begin
            ends[count] = begin
            gaps[count] = pending
            count += 1
        keys[count] = key_of(data, begin, i, seed)
        begins[count] = begin
        ends[count] = i
        gaps[count] = pending
        count += 1
        pending = 1 if kind == WRAPPED else 0
    if not collapse:
        pending += 1
    gaps[count] = pending
    return count


@njit(cache=True, nogil=True, inline="always")
def join_of(keys, gaps, k):
    """How token k joins the token before it: 0 without a space, 1 after one."""
    if keys[k] == SPACE_KEY or gaps[k] == 0:
        return U0
    return U1


@njit(cache=True, nogil=True)
def find_token(slots, pool, data, begin, end, key):
    """Slot of a token, or -1."""
    cap = slots.shape[0]
    at = np.int64(mix(key) & np.uint64(cap - 1))
    while True:
        found = slots[at, 0]
        if found == key:
            break
        if found == U0:
            return np.int64(-1)
        at = (at + 1) & (cap - 1)
    if key & LONG:
        ref = np.int64(slots[at, 1] >> np.uint64(36)) * 8
        length = end - begin
        if ref + 4 + length > pool.shape[0]:
            return np.int64(-1)
        stored = 0
        for k in range(4):
            stored |= np.int64(pool[ref + k]) << (8 * k)
        if stored != length:
            return np.int64(-1)
        for k in range(length):
            if pool[ref + 4 + k] != data[begin + k]:
                return np.int64(-1)
    return at


@njit(cache=True, nogil=True, inline="always")
def pair_key(node, token, join):
    """Key of the node that follows `node` by `token`."""
    return np.uint64(node) << U33 | np.uint64(token) << U1 | join


@njit(cache=True, nogil=True)
def find_pair(slots, key):
    """Slot of a pair, or -1."""
    cap = slots.shape[0]
    at = np.int64(mix(key) & np.uint64(cap - 1))
    while True:
        found = slots[at, 0]
        if found == key:
            return at
        if found == EMPTY_PAIR:
            return np.int64(-1)
        at = (at + 1) & (cap - 1)
