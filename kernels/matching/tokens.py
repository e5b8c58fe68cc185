"""Compiled: a block of texts to token arrays, with a fast way for ASCII."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.intrinsics import load64, trailing_zeros
from kernels.matching.scan import (
    COMPLEX,
    NO_STEP,
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
def mark_alphanumerics(raw, size, bits):
    """Bit i of `bits` says whether raw[i] is an ASCII letter or digit, for i < size (and more).

    `raw` must have 64 bytes behind `size`; two words of `bits` behind the last are cleared.
    """
    words = (size + 63) // 64
    for w in range(words):
        out = np.uint64(0)
        for b in range(8):
            x = load64(raw, 64 * w + 8 * b)
            low = x & SEVEN
            letter = low | CASE
            found = ((low + FROM_0) & ~(low + PAST_9)) | ((letter + FROM_A) & ~(letter + PAST_Z))
            found &= ~x & HIGH
            out |= (((found >> N7) * GATHER) >> N56) << np.uint64(8 * b)
        bits[w] = out
    bits[words] = 0
    bits[words + 1] = 0


@njit(nogil=True, inline="always")
def skip_alphanumerics(bits, i, end):
    """The first place at or behind i, at most end, that is no ASCII letter or digit."""
    while True:
        w = i >> 6
        shift = np.uint64(i & 63)
        window = (bits[w] >> shift) | ((bits[w + 1] << N1) << (N63 - shift))
        run = trailing_zeros(~window)
        i += run
        if i >= end:
            return end
        if run < 64:
            return i


@njit(nogil=True)
def tokens_of_text(
    raw, begin, end, bits, classes, numbers, pages, direct, collapse, multiple, seed, text, keys,
    offsets, lengths, places, joins, gaps, owners, count,
):  # fmt: skip
    """Append the tokens of raw[begin:end) and a token that ends the text; returns their number.

    For each token: its place in the token table (UNKNOWN; WORD if it must be looked up by its key),
    its join to the token before (0 none, 1 a space, BREAK), the spaces before it, its text.
    `collapse`: a run of white space is one space. Else one space is added at either end and around
    each wrapped character, every space counts, and if entries have runs of spaces (`multiple`) each
    space of a run but the last is a token of its own.
    """
    first = count
    pending = 0 if collapse else 1
    i = begin
    while i < end:
        kind = classes[raw[i]]
        start = i
        point = np.int64(raw[i])
        if kind == COMPLEX:
            point, size = decode(raw, i, end)
            kind = kind_of(point, numbers, pages)
            i += size
        else:
            i += 1
        if kind == SPACE:
            pending = 1 if collapse else pending + 1
            continue
        if kind == WRAPPED:
            pending += 1
        join = min(pending, 1)
        if pending > 1:
            if multiple:
                for _ in range(pending - 1):
                    places[count], joins[count], gaps[count] = direct[0x20], 0, pending
                    owners[count] = text
                    count += 1
            else:
                join = BREAK
        joins[count], gaps[count], owners[count] = join, pending, text
        pending = 0
        if kind == RUN:
            while i < end:
                i = skip_alphanumerics(bits, i, end)
                if i == end:
                    break
                kind = classes[raw[i]]
                size = 1
                if kind == COMPLEX:
                    point, size = decode(raw, i, end)
                    kind = kind_of(point, numbers, pages)
                if kind != RUN:
                    break
                i += size
            keys[count] = key_of(raw, start, i, seed)
            offsets[count] = start
            lengths[count] = i - start
            places[count] = WORD
        elif point < 0x10000:
            if point == 0xD800:
                places[count] = UNKNOWN
            else:
                places[count] = direct[point]
            if kind == WRAPPED:
                pending = 1
        else:
            keys[count] = key_of(raw, start, i, seed)
            offsets[count] = start
            lengths[count] = i - start
            places[count] = WORD
        count += 1
    joins[first] = BREAK
    if not collapse:
        pending += 1
    places[count], joins[count], gaps[count], owners[count] = UNKNOWN, BREAK, pending, text
    return count + 1
