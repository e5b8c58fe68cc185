"""Compiled: UTF-8 texts to hashes of their n-grams. `words` and `reference` are the definition.

Letters are packed by eights of bytes and hashed when eight are there or a word ends; no byte is
copied. Time is linear in the bytes; work space is 9 to 21 bytes for each two of the longest text's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from kernels.matching.classes import CODE_POINTS
from kernels.matching.memory import get8, get32, get64, put8, put32, put64
from kernels.minhash.reference import MULTIPLIER as MULTIPLIER_
from kernels.minhash.sketching import BASE, BLOCK, LANES, mix, sketch_set
from kernels.minhash.words import LENGTH_SHIFT, SPACE, UNSPACED

Array = Any
Int = Any
Word = Any

MULTIPLIER = np.uint64(MULTIPLIER_)
U0, U1, U8, U32, U64 = np.uint64(0), np.uint64(1), np.uint64(8), np.uint64(32), np.uint64(64)
LENGTH, LENGTH_MASK = np.uint64(LENGTH_SHIFT), np.uint64(7)
FLAG_UNSPACED, FLAG_SPACE = np.uint64(UNSPACED), np.uint64(SPACE)
LOW = np.uint64(0xFFFFFFFF)


@njit(nogil=True, inline="always")
def fold_in(h: Word, chunk: Word) -> Word:
    """Hash eight more bytes of a word."""
    h = (h ^ chunk) * MULTIPLIER
    return h ^ (h >> U32)


@njit(nogil=True)
def words_of_text(
    data: Int, at: Int, stop: Int, tables: Int, words: Int, weights: Int, begins: Int, ends: Int
) -> Int:
    """Hashes and weights of the words in bytes [at, stop) of data; returns their number.

    `words` (uint64), `weights` (uint8), `begins` and `ends` (int32, from `at`) are addresses of room for
    (stop - at) // 2 + 1 numbers; begins is 0 if places are not wanted. `tables` is the address of three:
    `plain` uint8 [256], the folded character of an ASCII letter or digit and 0 for all other bytes,
    and those of `words.tables`. Bytes that are no UTF-8 are dropped.
    """
    plain, starts = np.int64(get64(tables, 0)), np.int64(get64(tables, 1))
    entries, origin = np.int64(get64(tables, 2)), at
    count: Int = 0
    begin = end = at
    h, chunk, shift, size = U0, U0, U0, U0
    while at < stop:
        letter = get8(plain, get8(data, at))
        if letter != 0:
            if size == U0:
                begin = at
            while True:
                chunk |= np.uint64(letter) << shift
                shift += U8
                size += U1
                at += 1
                if shift == U64:
                    h = fold_in(h, chunk)
                    chunk, shift = U0, U0
                if at == stop:
                    break
                letter = get8(plain, get8(data, at))
                if letter == 0:
                    break
            end = at
            if at == stop:
                break
        here = at
        point = get8(data, at)
        at += 1
        if point >= 0x80:
            more = 0
            if point >= 0xF0:
                point, more = point & 7, 3
            elif point >= 0xE0:
                point, more = point & 15, 2
            elif point >= 0xC0:
                point, more = point & 31, 1
            else:
                continue
            while more > 0 and at < stop and get8(data, at) & 0xC0 == 0x80:
                point = point << 6 | get8(data, at) & 0x3F
                at += 1
                more -= 1
            if more > 0 or point >= CODE_POINTS:
                continue
        entry = get64(entries, get32(starts, point >> 8) + (point & 255))
        if entry == U0:
            continue
        alone = entry & FLAG_UNSPACED != U0
        if (alone or entry & FLAG_SPACE != U0) and size != U0:
            if shift != U0:
                h = fold_in(h, chunk)
            put64(words, count, mix(h ^ size))
            put8(weights, count, 2)
            if begins != 0:
                put32(begins, count, begin - origin)
                put32(ends, count, end - origin)
            count += 1
            h, chunk, shift, size = U0, U0, U0, U0
        value, width = entry & LOW, (entry >> LENGTH) & LENGTH_MASK
        if alone:
            put64(words, count, mix(fold_in(U0, value) ^ width))
            put8(weights, count, 1)
            if begins != 0:
                put32(begins, count, here - origin)
                put32(ends, count, at - origin)
            count += 1
        elif width != U0:
            if size == U0:
                begin = here
            end = at
            size += width
            chunk |= value << shift
            shift += width * U8
            if shift >= U64:
                h = fold_in(h, chunk)
                shift -= U64
                chunk = value >> (width * U8 - shift)
    if size != U0:
        if shift != U0:
            h = fold_in(h, chunk)
        put64(words, count, mix(h ^ size))
        put8(weights, count, 2)
        if begins != 0:
            put32(begins, count, begin - origin)
            put32(ends, count, end - origin)
        count += 1
    return count


@njit(nogil=True)
def grams_of_words(
    words: Int, weights: Int, count: Int, need: Int, powers: Int, out: Int, used: Int
) -> Int:
    """Write the hashes of n-grams of `count` words from out[used] on; returns the end.

    All but numbers are addresses. `need` is 2n, `powers` uint64 [2n] are those of `BASE`. Fewer words
    than an n-gram give one hash.
    """
    first = used
    start, stop, total = 0, 0, 0
    h = U0
    while True:
        while total < need and stop < count:
            h = h * BASE + get64(words, stop)
            total += get8(weights, stop)
            stop += 1
        if total < need:
            break
        put64(out, used, mix(h))
        used += 1
        h -= get64(words, start) * get64(powers, stop - start - 1)
        total -= get8(weights, start)
        start += 1
    if used == first and count > 0:
        put64(out, used, mix(h))
        used += 1
    return used


@njit(cache=True, nogil=True)
def shingles_of_texts(
    data: Array,
    begins: Array,
    ends: Array,
    tables: Array,
    need: Int,
    powers: Array,
    words: Array,
    weights: Array,
    out: Array,
    offsets: Array,
) -> None:
    """Shingles of text r = data[begins[r]:ends[r]] into out[offsets[r]:offsets[r + 1]].

    `words` and `weights` are work space for as many words as a text can have; it is the caller's, as
    compiled code would free an array of its own after taking its address. `offsets` int64 [n + 1] is
    written here.
    """
    word, weight, chars = words.ctypes.data, weights.ctypes.data, tables.ctypes.data
    used: Int = 0
    offsets[0] = 0
    for r in range(begins.shape[0]):
        count = words_of_text(data.ctypes.data, begins[r], ends[r], chars, word, weight, 0, 0)
        used = grams_of_words(word, weight, count, need, powers.ctypes.data, out.ctypes.data, used)
        offsets[r + 1] = used


@njit(cache=True, nogil=True)
def sketch_texts(
    data: Array,
    begins: Array,
    ends: Array,
    tables: Array,
    need: Int,
    powers: Array,
    words: Array,
    weights: Array,
    hashes: Array,
    folded: Array,
    numbers: Array,
    out: Array,
) -> None:
    """`shingles_of_texts` and `sketching.sketch_rows` at once, text by text, so that all stays in
    cache; `hashes` uint64 and `folded` uint32 are work space too."""
    word, weight, chars = words.ctypes.data, weights.ctypes.data, tables.ctypes.data
    slots = out.shape[1]
    thrown, rest = np.empty(BLOCK, np.uint64), np.empty((4, slots + LANES), np.uint32)
    for r in range(begins.shape[0]):
        count = words_of_text(data.ctypes.data, begins[r], ends[r], chars, word, weight, 0, 0)
        used = grams_of_words(word, weight, count, need, powers.ctypes.data, hashes.ctypes.data, 0)
        sketch_set(
            hashes.ctypes.data,
            used,
            slots,
            numbers.ctypes.data,
            thrown,
            rest,
            folded.ctypes.data,
            out.ctypes.data + 4 * slots * r,
        )
