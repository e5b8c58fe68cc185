"""Compiled: a block of texts to token arrays, with a fast way for ASCII."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching import state as st
from kernels.matching.memory import (
    Array,
    Int,
    get8,
    get32,
    get64,
    load64,
    put8,
    put32,
    put64,
    trailing_zeros,
)
from kernels.matching.scan import (
    COMPLEX,
    INVALID,
    RUN,
    SPACE,
    WRAPPED,
    decode,
    key_of,
    kind_of,
)

UNKNOWN = -1
WORD = -2
BREAK = 2

SEVEN, HIGH = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x8080808080808080)
CASE = np.uint64(0x2020202020202020)
FROM_0, PAST_9 = np.uint64(0x5050505050505050), np.uint64(0x4646464646464646)
FROM_A, PAST_Z = np.uint64(0x1F1F1F1F1F1F1F1F), np.uint64(0x0505050505050505)
GATHER = np.uint64(0x0102040810204080)
N1, N7, N56, N63 = np.uint64(1), np.uint64(7), np.uint64(56), np.uint64(63)


@njit(nogil=True)
def mark_alphanumerics(raw: Int, size: Int, bits: Int) -> None:
    """Bit i of `bits` says whether byte i is an ASCII letter or digit, for i < size and some more.

    64 bytes behind `size` are read; two words of `bits` behind the last are cleared.
    """
    words = (size + 63) // 64
    for w in range(words):
        out = np.uint64(0)
        for b in range(8):
            x = load64(raw + 64 * w + 8 * b)
            low = x & SEVEN
            letter = low | CASE
            found = ((low + FROM_0) & ~(low + PAST_9)) | ((letter + FROM_A) & ~(letter + PAST_Z))
            found &= ~x & HIGH
            out |= (((found >> N7) * GATHER) >> N56) << np.uint64(8 * b)
        put64(bits, w, out)
    put64(bits, words, np.uint64(0))
    put64(bits, words + 1, np.uint64(0))


@njit(nogil=True, inline="always")
def skip_alphanumerics(bits: Int, i: Int) -> Int:
    """The first place at or behind i that is no ASCII letter or digit, at most 64 further."""
    w = i >> 6
    shift = np.uint64(i & 63)
    window = (get64(bits, w) >> shift) | ((get64(bits, w + 1) << N1) << (N63 - shift))
    return i + trailing_zeros(~window)


@njit(nogil=True)
def tokens_of_block(s: Array, base: Int, row: Int, last: Int) -> Int:
    """Write the tokens of texts row .. last - 1, each text closed by one more; returns their number.

    For each token: its place in the token table (UNKNOWN; WORD if it is to be looked up by its
    key), its join to the token before (0 none, 1 a space, BREAK), the spaces before it, its text.
    If COLLAPSE is set, a run of white space is one space. Else one space is added at either end and around
    each wrapped character, every space counts, and if entries have runs of spaces (MULTIPLE) each
    space of a run but the last is a token of its own.
    """
    raw, bits, seed = s[st.RAW], s[st.BITS], np.uint64(s[st.SEED])
    collapse, multiple = s[st.COLLAPSE] != 0, s[st.MULTIPLE] != 0
    text_starts, text_ends = s[st.STARTS], s[st.ENDS]
    classes, page_starts, pages, direct = (
        s[st.CLASSES], s[st.PAGE_STARTS], s[st.PAGES], s[st.DIRECT],
    )  # fmt: skip
    keys, offsets, lengths, places = s[st.KEYS], s[st.OFFSETS], s[st.LENGTHS], s[st.PLACES]
    joins, gaps, owners = s[st.JOINS], s[st.GAPS], s[st.OWNERS]
    count = 0
    blank = get32(direct, 0x20)
    for t in range(row, last):
        i = np.int64(get64(text_starts, t)) - base
        end = np.int64(get64(text_ends, t)) - base
        pending = 0 if collapse else 1
        first = count
        while i < end:
            start = i
            point = get8(raw, i)
            kind = get8(classes, point)
            if kind == COMPLEX:
                point, size = decode(raw, i, end)
                kind = kind_of(point, page_starts, pages)
                i += size
            else:
                i += 1
            if kind == SPACE:
                pending = 1 if collapse else pending + 1
                continue
            if kind == WRAPPED:
                pending += 1
            join = pending
            if pending > 1:
                join = BREAK
                if multiple:
                    join = 1
                    for _ in range(pending - 1):
                        put32(places, count, blank)
                        put8(joins, count, 0)
                        put32(gaps, count, pending)
                        put32(owners, count, t - row)
                        count += 1
            put8(joins, count, join)
            put32(gaps, count, pending)
            put32(owners, count, t - row)
            pending = 0
            if kind == RUN:
                while i < end:
                    i = skip_alphanumerics(bits, i)
                    if i >= end:
                        i = end
                        break
                    point = get8(raw, i)
                    kind = get8(classes, point)
                    size = 1
                    if kind == COMPLEX:
                        point, size = decode(raw, i, end)
                        kind = kind_of(point, page_starts, pages)
                    if kind != RUN:
                        break
                    i += size
                put64(keys, count, key_of(raw + start, raw + i, seed))
                put32(offsets, count, start)
                put32(lengths, count, i - start)
                put32(places, count, WORD)
            elif point < 0x10000:
                put32(places, count, get32(direct, point) if point != INVALID else UNKNOWN)
                if kind == WRAPPED:
                    pending = 1
            else:
                put64(keys, count, key_of(raw + start, raw + i, seed))
                put32(offsets, count, start)
                put32(lengths, count, i - start)
                put32(places, count, WORD)
            count += 1
        put8(joins, first, BREAK)
        put32(places, count, UNKNOWN)
        put8(joins, count, BREAK)
        put32(gaps, count, pending if collapse else pending + 1)
        put32(owners, count, t - row)
        count += 1
    return count
