"""Compiled: which n-grams of texts are in a sorted list of hashes.

A lookup is a tuple (keys, first, shift, bits, narrow): `keys` uint64, ascending; keys[first[p]:first[p + 1]]
are those whose high bits, key >> shift, are p; `bits` has a bit for each key's value key >> narrow, so
that a hash which is not there costs one read of a small table. Time is linear in the bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from kernels.minhash.scan import words_of_text
from kernels.minhash.sketching import BASE, mix

Array = Any
Int = Any
Word = Any
Lookup = Any

U0, U1, U6, LOW6 = np.uint64(0), np.uint64(1), np.uint64(6), np.uint64(63)


@njit(nogil=True, inline="always")
def find(lookup: Lookup, key: Word) -> Int:
    """Where a key first stands, or -1."""
    keys, first, shift, bits, narrow = lookup
    bit = key >> narrow
    if bits[np.int64(bit >> U6)] >> (bit & LOW6) & U1 == U0:
        return -1
    page = np.int64(key >> shift)
    for at in range(first[page], first[page + 1]):
        if keys[at] == key:
            return at
    return -1


@njit(nogil=True)
def hash_of(words: Array, start: Int, stop: Int) -> Word:
    """The hash of consecutive words."""
    h = U0
    for i in range(start, stop):
        h = h * BASE + words[i]
    return mix(h)


@njit(cache=True, nogil=True)
def places_of_grams(
    data: Array,
    begins: Array,
    ends: Array,
    plain: Array,
    starts: Array,
    entries: Array,
    need: Int,
    powers: Array,
    room: Int,
    hashes: Array,
    places: Array,
    offsets: Array,
    counts: Array,
) -> None:
    """As `scan.shingles_of_texts`, and places int64 [., 2]: bytes of the text at which an n-gram
    begins and ends. counts[r] is the number of words of a text that has no n-gram, else 0."""
    words, weights = np.empty(room, np.uint64), np.empty(room, np.uint8)
    froms, tos = np.empty(room, np.int64), np.empty(room, np.int64)
    used = 0
    offsets[0] = 0
    for r in range(begins.shape[0]):
        count = words_of_text(
            data, begins[r], ends[r], plain, starts, entries, words, weights, froms, tos
        )
        begin = used
        start = stop = total = 0
        h = U0
        while True:
            while total < need and stop < count:
                h = h * BASE + words[stop]
                total += np.int64(weights[stop])
                stop += 1
            if total < need and (used > begin or count == 0):
                break
            hashes[used] = mix(h)
            places[used, 0], places[used, 1] = froms[start] - begins[r], tos[stop - 1] - begins[r]
            used += 1
            if total < need:
                counts[r] = count
                break
            h -= words[start] * powers[stop - start - 1]
            total -= np.int64(weights[start])
            start += 1
        offsets[r + 1] = used


@njit(cache=True, nogil=True)
def find_overlaps(
    data: Array,
    begins: Array,
    ends: Array,
    plain: Array,
    starts: Array,
    entries: Array,
    powers: Array,
    room: Int,
    need: Int,
    grams: Lookup,
    short_need: Int,
    shorts: Lookup,
    short_counts: Array,
    short_hashes: Array,
    tinies: Lookup,
    row: Int,
    hits: Array,
) -> tuple[Int, Int]:
    """Where n-grams, short texts and tiny texts occur in texts from `row` on.

    hits int64 [., 5] gets (row, kind 0 to 2, entry of the lookup, begin, end in bytes of the text).
    Short texts are found by their first words of weight `short_need`: short_counts and short_hashes
    have the number and the hash of all their words. A tiny text is found as a whole text only.
    Returns (rows done, hits); with rows left, hits has no room for those of the next.
    """
    words, weights = np.empty(room, np.uint64), np.empty(room, np.uint8)
    froms, tos = np.empty(room, np.int64), np.empty(room, np.int64)
    some_shorts, some_tinies = len(shorts[0]) > 0, len(tinies[0]) > 0
    used = 0
    while row < begins.shape[0]:
        begin = begins[row]
        count = words_of_text(
            data, begin, ends[row], plain, starts, entries, words, weights, froms, tos
        )
        before = used
        for kind in range(2):
            if kind == 1 and not some_shorts:
                break
            least = need if kind == 0 else short_need
            start = stop = total = 0
            h = U0
            while True:
                while total < least and stop < count:
                    h = h * BASE + words[stop]
                    total += np.int64(weights[stop])
                    stop += 1
                if total < least:
                    break
                key = mix(h)
                at = find(grams, key) if kind == 0 else find(shorts, key)
                while at >= 0:
                    end = stop
                    same = True
                    if kind == 1:
                        end = start + short_counts[at]
                        same = end <= count and hash_of(words, start, end) == short_hashes[at]
                    if same:
                        if used == hits.shape[0]:
                            return row, before
                        hits[used, 0], hits[used, 1], hits[used, 2] = row, kind, at
                        hits[used, 3], hits[used, 4] = froms[start] - begin, tos[end - 1] - begin
                        used += 1
                    at += 1
                    if kind == 0 or at == len(shorts[0]) or shorts[0][at] != key:
                        break
                h -= words[start] * powers[stop - start - 1]
                total -= np.int64(weights[start])
                start += 1
            if start == 0 and count > 0 and kind == 0 and total < short_need and some_tinies:
                at = find(tinies, mix(h))
                if at >= 0:
                    if used == hits.shape[0]:
                        return row, before
                    hits[used, 0], hits[used, 1], hits[used, 2] = row, 2, at
                    hits[used, 3], hits[used, 4] = froms[0] - begin, tos[count - 1] - begin
                    used += 1
        row += 1
    return row, used
