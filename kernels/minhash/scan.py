"""Compiled: UTF-8 texts to hashes of their n-grams. `words` and `reference` are the definition.

Letters are packed by eights of bytes and hashed when eight are there or a word ends; no byte is
copied. Time is linear in the bytes; work space is 9 bytes for each two of the longest text's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from kernels.minhash.reference import MULTIPLIER as MULTIPLIER_
from kernels.minhash.sketching import BASE, mix, sketch_set
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
    data: Array,
    at: Int,
    stop: Int,
    plain: Array,
    starts: Array,
    entries: Array,
    words: Array,
    weights: Array,
    begins: Array,
    ends: Array,
) -> Int:
    """Hashes and weights of the words in data[at:stop]; returns their number.

    `plain` uint8 [256] has the folded character of an ASCII letter or digit and 0 for all other
    bytes; `starts` and `entries` are `words.tables`. `words` uint64 and `weights` uint8 have room for
    (stop - at) // 2 + 1; `begins` and `ends` int64 as well, or none if positions are not wanted. Bytes
    that are no UTF-8 are dropped.
    """
    positions = begins.shape[0] > 0
    count = 0
    begin = end = at
    h, chunk, shift, size = U0, U0, U0, U0
    while at < stop:
        letter = plain[data[at]]
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
                letter = plain[data[at]]
                if letter == 0:
                    break
            end = at
            if at == stop:
                break
        here = at
        point = np.int64(data[at])
        at += 1
        more = 0
        if point >= 0x80:
            if point >= 0xF0:
                point, more = point & 7, 3
            elif point >= 0xE0:
                point, more = point & 15, 2
            elif point >= 0xC0:
                point, more = point & 31, 1
            else:
                continue
            while more > 0 and at < stop and data[at] & 0xC0 == 0x80:
                point = point << 6 | np.int64(data[at] & 0x3F)
                at += 1
                more -= 1
            if more > 0 or point >= 0x110000:
                continue
        entry = entries[starts[point >> 8] + (point & 255)]
        if entry == U0:
            continue
        alone = entry & FLAG_UNSPACED != U0
        if (alone or entry & FLAG_SPACE != U0) and size != U0:
            if shift != U0:
                h = fold_in(h, chunk)
            words[count], weights[count] = mix(h ^ size), 2
            if positions:
                begins[count], ends[count] = begin, end
            count += 1
            h, chunk, shift, size = U0, U0, U0, U0
        value, width = entry & LOW, (entry >> LENGTH) & LENGTH_MASK
        if alone:
            words[count], weights[count] = mix(fold_in(U0, value) ^ width), 1
            if positions:
                begins[count], ends[count] = here, at
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
        words[count], weights[count] = mix(h ^ size), 2
        if positions:
            begins[count], ends[count] = begin, end
        count += 1
    return count


@njit(nogil=True)
def grams_of_words(
    words: Array, weights: Array, count: Int, need: Int, powers: Array, out: Array, used: Int
) -> Int:
    """Write the hashes of n-grams of `count` words from out[used] on; returns the end.

    `need` is 2n, `powers` uint64 [2n] are those of `BASE`. Fewer words than an n-gram give one hash.
    """
    first = used
    start = stop = total = 0
    h = U0
    while True:
        while total < need and stop < count:
            h = h * BASE + words[stop]
            total += np.int64(weights[stop])
            stop += 1
        if total < need:
            break
        out[used] = mix(h)
        used += 1
        h -= words[start] * powers[stop - start - 1]
        total -= np.int64(weights[start])
        start += 1
    if used == first and count > 0:
        out[used] = mix(h)
        used += 1
    return used


@njit(cache=True, nogil=True)
def shingles_of_texts(
    data: Array,
    begins: Array,
    ends: Array,
    plain: Array,
    starts: Array,
    entries: Array,
    need: Int,
    powers: Array,
    room: Int,
    out: Array,
    offsets: Array,
) -> None:
    """Shingles of text r = data[begins[r]:ends[r]] into out[offsets[r]:offsets[r + 1]].

    `room` is the most words that a text can have; `offsets` int64 [n + 1], written here.
    """
    words, weights = np.empty(room, np.uint64), np.empty(room, np.uint8)
    nowhere = np.empty(0, np.int64)
    used = 0
    offsets[0] = 0
    for r in range(begins.shape[0]):
        count = words_of_text(
            data, begins[r], ends[r], plain, starts, entries, words, weights, nowhere, nowhere
        )
        used = grams_of_words(words, weights, count, need, powers, out, used)
        offsets[r + 1] = used


@njit(cache=True, nogil=True)
def sketch_texts(
    data: Array,
    begins: Array,
    ends: Array,
    plain: Array,
    starts: Array,
    entries: Array,
    need: Int,
    powers: Array,
    room: Int,
    numbers: Array,
    out: Array,
) -> None:
    """`shingles_of_texts` and `sketching.sketch_rows` at once, text by text, so that all stays in cache."""
    words, weights = np.empty(room, np.uint64), np.empty(room, np.uint8)
    hashes, folded = np.empty(room, np.uint64), np.empty(room, np.uint32)
    nowhere = np.empty(0, np.int64)
    for r in range(begins.shape[0]):
        count = words_of_text(
            data, begins[r], ends[r], plain, starts, entries, words, weights, nowhere, nowhere
        )
        used = grams_of_words(words, weights, count, need, powers, hashes, 0)
        sketch_set(hashes, 0, used, numbers, folded, out, r)
