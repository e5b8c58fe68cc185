"""Compiled: hits to ascending, unique ids. A hit is text << 32 | entry."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.memory import Int, Word, get64, put32, put64
from kernels.matching.state import BUCKETS, DIGIT

MASK = np.uint64(BUCKETS - 1)
U32 = np.uint64(32)


@njit(nogil=True, inline="always")
def shift_of(digit: Int, low: Int) -> Word:
    """Where a digit starts in a hit, if the first `low` digits are the entry's."""
    return np.uint64(digit * DIGIT if digit < low else 32 + (digit - low) * DIGIT)


@njit(nogil=True)
def sort_hits(
    hits: Int, count: Int, spare: Int, tally: Int, entry_bits: Int, text_bits: Int
) -> Int:
    """Radix sort; returns the address, `hits` or `spare`, where the sorted hits lie.

    `tally` is room for DIGITS * BUCKETS uint64. Only the low `entry_bits` of an entry and the low
    `text_bits` of a text are looked at.
    """
    low = (entry_bits + DIGIT - 1) // DIGIT
    digits = low + (text_bits + DIGIT - 1) // DIGIT
    for b in range(digits * BUCKETS):
        put64(tally, b, np.uint64(0))
    for h in range(count):
        hit = get64(hits, h)
        for d in range(digits):
            at = d * BUCKETS + np.int64((hit >> shift_of(d, low)) & MASK)
            put64(tally, at, get64(tally, at) + np.uint64(1))
    for d in range(digits):
        counts = tally + 8 * BUCKETS * d
        total = np.uint64(0)
        for b in range(BUCKETS):
            here = get64(counts, b)
            put64(counts, b, total)
            total += here
        shift = shift_of(d, low)
        for h in range(count):
            hit = get64(hits, h)
            bucket = np.int64((hit >> shift) & MASK)
            to = get64(counts, bucket)
            put64(spare, np.int64(to), hit)
            put64(counts, bucket, to + np.uint64(1))
        hits, spare = spare, hits
    return hits


@njit(nogil=True)
def unique_hits(hits: Int, count: Int, to: Int) -> Int:
    """Copy sorted hits without repetition; returns their number."""
    kept: Int = 0
    before = np.uint64(0xFFFFFFFFFFFFFFFF)
    for h in range(count):
        hit = get64(hits, h)
        put64(to, kept, hit)
        kept += np.int64(hit != before)
        before = hit
    return kept


@njit(nogil=True)
def write_ids(hits: Int, count: Int, ids: Int, used: Int, counts: Int) -> Int:
    """Write the entries of sorted hits without repetition from ids[used] on; returns the end.

    counts[t] goes up by the ids of text t.
    """
    before = np.uint64(0xFFFFFFFFFFFFFFFF)
    for h in range(count):
        hit = get64(hits, h)
        put32(ids, used, np.int64(hit))
        new = hit != before
        used += np.int64(new)
        text = np.int64(hit >> U32)
        put64(counts, text, get64(counts, text) + np.uint64(new))
        before = hit
    return used
