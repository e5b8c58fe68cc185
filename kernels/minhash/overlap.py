"""Compiled: which n-grams of texts are in a sorted list of hashes.

A lookup is the address of six numbers (`finding.Lookup`): those of `keys`, `first` and `bits`, two shifts
and the number of keys. `keys` uint64 ascend; keys[first[p]:first[p + 1]] are those whose high bits, key >>
shift, are p; `bits` has a bit for each key's value key >> narrow, so that a hash which is not there costs
one read of a small table. Time is linear in the bytes. `words` uint64, `weights` uint8, `froms` and `tos`
int32 are the caller's work space for as many words as a text can have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from kernels.matching.memory import get8, get64
from kernels.minhash.scan import words_of_text
from kernels.minhash.sketching import BASE, mix

Array = Any
Int = Any
Word = Any

U0, U1, U6, LOW6 = np.uint64(0), np.uint64(1), np.uint64(6), np.uint64(63)


@njit(nogil=True)
def find(lookup: Int, key: Word) -> Int:
    """Where a key first stands, or -1."""
    bit = key >> get64(lookup, 4)
    page = get64(np.int64(get64(lookup, 2)), np.int64(bit >> U6))
    if page >> (bit & LOW6) & U1 == U0:
        return -1
    keys, first = np.int64(get64(lookup, 0)), np.int64(get64(lookup, 1))
    head = np.int64(key >> get64(lookup, 3))
    for at in range(np.int64(get64(first, head)), np.int64(get64(first, head + 1))):
        if get64(keys, at) == key:
            return at
    return -1


@njit(nogil=True)
def hash_of(words: Int, start: Int, stop: Int) -> Word:
    """The hash of consecutive words, whose hashes are at an address."""
    h = U0
    for i in range(start, stop):
        h = h * BASE + get64(words, i)
    return mix(h)


@njit(cache=True, nogil=True)
def places_of_grams(
    data: Array,
    begins: Array,
    ends: Array,
    tables: Array,
    need: Int,
    powers: Array,
    words: Array,
    weights: Array,
    froms: Array,
    tos: Array,
    hashes: Array,
    places: Array,
    offsets: Array,
    counts: Array,
) -> None:
    """As `scan.shingles_of_texts`, and places int64 [., 2]: bytes of the text at which an n-gram
    begins and ends. counts[r] is the number of words of a text that has no n-gram, else 0."""
    word, weight, chars = words.ctypes.data, weights.ctypes.data, tables.ctypes.data
    begin_at, end_at, power = froms.ctypes.data, tos.ctypes.data, powers.ctypes.data
    used = 0
    offsets[0] = 0
    for r in range(begins.shape[0]):
        count = words_of_text(
            data.ctypes.data, begins[r], ends[r], chars, word, weight, begin_at, end_at
        )
        begin = used
        start, stop, total = 0, 0, 0
        h = U0
        while True:
            while total < need and stop < count:
                h = h * BASE + get64(word, stop)
                total += get8(weight, stop)
                stop += 1
            if total < need and (used > begin or count == 0):
                break
            hashes[used] = mix(h)
            places[used, 0], places[used, 1] = froms[start], tos[stop - 1]
            used += 1
            if total < need:
                counts[r] = count
                break
            h -= get64(word, start) * get64(power, stop - start - 1)
            total -= get8(weight, start)
            start += 1
        offsets[r + 1] = used


@njit(cache=True, nogil=True)
def find_overlaps(
    data: Array,
    begins: Array,
    ends: Array,
    tables: Array,
    powers: Array,
    words: Array,
    weights: Array,
    froms: Array,
    tos: Array,
    need: Int,
    grams: Array,
    short_need: Int,
    shorts: Array,
    short_counts: Array,
    short_hashes: Array,
    tinies: Array,
    row: Int,
    hits: Array,
) -> tuple[Int, Int]:
    """Where n-grams, short texts and tiny texts occur in texts from `row` on.

    hits int64 [., 5] gets (row, kind 0 to 2, entry of the lookup, begin, end in bytes of the text).
    Short texts are found by their first words of weight `short_need`: short_counts and short_hashes
    have the number and the hash of all their words. A tiny text is found as a whole text only.
    Returns (rows done, hits); with rows left, hits has no room for those of the next.
    """
    word, weight, chars = words.ctypes.data, weights.ctypes.data, tables.ctypes.data
    begin_at, end_at, power = froms.ctypes.data, tos.ctypes.data, powers.ctypes.data
    short_keys, shorts_end = np.int64(shorts[0]), np.int64(shorts[5])
    some_tinies = tinies[5] > U0
    lookups = (grams.ctypes.data, shorts.ctypes.data)
    used: Int = 0
    while row < begins.shape[0]:
        count = words_of_text(
            data.ctypes.data, begins[row], ends[row], chars, word, weight, begin_at, end_at
        )
        before = used
        for kind in range(2):
            if kind == 1 and shorts_end == 0:
                break
            least = need if kind == 0 else short_need
            start, stop, total = 0, 0, 0
            h = U0
            while True:
                while total < least and stop < count:
                    h = h * BASE + get64(word, stop)
                    total += get8(weight, stop)
                    stop += 1
                if total < least:
                    break
                key = mix(h)
                at = find(lookups[kind], key)
                while at >= 0:
                    end = stop
                    same = True
                    if kind == 1:
                        end = start + short_counts[at]
                        same = end <= count and hash_of(word, start, end) == short_hashes[at]
                    if same:
                        if used == hits.shape[0]:
                            return row, before
                        hits[used, 0], hits[used, 1], hits[used, 2] = row, kind, at
                        hits[used, 3], hits[used, 4] = froms[start], tos[end - 1]
                        used += 1
                    at += 1
                    if kind == 0 or at == shorts_end or get64(short_keys, at) != key:
                        break
                h -= get64(word, start) * get64(power, stop - start - 1)
                total -= get8(weight, start)
                start += 1
            if start == 0 and count > 0 and kind == 0 and total < short_need and some_tinies:
                at = find(tinies.ctypes.data, mix(h))
                if at >= 0:
                    if used == hits.shape[0]:
                        return row, before
                    hits[used, 0], hits[used, 1], hits[used, 2] = row, 2, at
                    hits[used, 3], hits[used, 4] = froms[0], tos[count - 1]
                    used += 1
        row += 1
    return row, used
