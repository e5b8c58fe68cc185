"""Compiled: hits to ascending, unique ids. A hit is text << 32 | entry."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.memory import get64, put32, put64

DIGIT = 10
BUCKETS = 1 << DIGIT
MASK = np.uint64(BUCKETS - 1)
U32 = np.uint64(32)


@njit(nogil=True)
def sort_hits(hits, count, spare, tally, entry_bits, text_bits):
    """Radix sort; returns the address, `hits` or `spare`, where the sorted hits lie.

    `tally` is room for BUCKETS uint64. Only the low `entry_bits` of an entry and the low
    `text_bits` of a text are looked at.
    """
    for part in range(2):
        base = 32 * part
        for low in range(0, text_bits if part else entry_bits, DIGIT):
            shift = np.uint64(base + low)
            for b in range(BUCKETS):
                put64(tally, b, np.uint64(0))
            for h in range(count):
                b = np.int64((get64(hits, h) >> shift) & MASK)
                put64(tally, b, get64(tally, b) + np.uint64(1))
            total = np.uint64(0)
            for b in range(BUCKETS):
                here = get64(tally, b)
                put64(tally, b, total)
                total += here
            for h in range(count):
                hit = get64(hits, h)
                b = np.int64((hit >> shift) & MASK)
                to = get64(tally, b)
                put64(spare, np.int64(to), hit)
                put64(tally, b, to + np.uint64(1))
            hits, spare = spare, hits
    return hits


@njit(nogil=True)
def unique_hits(hits, count, to):
    """Copy sorted hits without repetition; returns their number."""
    kept = 0
    before = np.uint64(0xFFFFFFFFFFFFFFFF)
    for h in range(count):
        hit = get64(hits, h)
        put64(to, kept, hit)
        kept += np.int64(hit != before)
        before = hit
    return kept


@njit(nogil=True)
def write_ids(hits, count, ids, used, counts):
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
