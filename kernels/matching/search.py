"""Compiled: the matching of texts."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching import scan
from kernels.matching.construct import (
    AFTER,
    BEFORE,
    CHILD_0,
    CHILD_1,
    ENTRY_MASK,
    NEXT_0,
    NEXT_1,
    VARIANT,
)
from kernels.matching.scan import U0


@njit(cache=True, nogil=True)
def match_texts(
    data,
    starts,
    ends,
    first,
    pairs,
    pool,
    variants,
    numbers,
    pages,
    collapse,
    seed,
    out,
    counts,
    row,
):
    """Match texts from `row` on; writes counts[row] and ids; returns (next row, ids written).

    Stops early, before a text whose ids may not fit into `out`.
    """
    n = starts.shape[0]
    base = first.shape[0]
    room = 0
    keys = np.empty(0, np.uint64)
    begins = np.empty(0, np.int64)
    stops = np.empty(0, np.int64)
    gaps = np.empty(0, np.int64)
    slots = np.empty(0, np.int64)
    used = 0
    while row < n:
        need = 2 * (ends[row] - starts[row]) + 4
        if need > room:
            room = max(need, 2 * room)
            keys = np.empty(room, np.uint64)
            begins = np.empty(room, np.int64)
            stops = np.empty(room, np.int64)
            gaps = np.empty(room, np.int64)
            slots = np.empty(room, np.int64)
        count = scan.tokenise(
            data, starts[row], ends[row], numbers, pages, collapse, seed, keys, begins, stops, gaps
        )
        for k in range(count):
            slots[k] = scan.find_token(first, pool, data, begins[k], stops[k], keys[k])
        begin = used
        for k in range(count):
            node = slots[k]
            if node < 0:
                continue
            word = first[node, 1]
            at = k
            while True:
                entry = np.int64(word & ENTRY_MASK)
                if entry:
                    before = gaps[k]
                    after = gaps[at + 1]
                    if word & VARIANT:
                        v = entry - 1
                        while v >= 0:
                            if before >= variants[v, 1] and after >= variants[v, 2]:
                                if used == out.shape[0]:
                                    return row, begin
                                out[used] = variants[v, 0]
                                used += 1
                            v = variants[v, 3]
                    elif not ((word & BEFORE and before == 0) or (word & AFTER and after == 0)):
                        if used == out.shape[0]:
                            return row, begin
                        out[used] = entry - 1
                        used += 1
                at += 1
                if at == count or slots[at] < 0:
                    break
                join = scan.join_of(keys, gaps, at)
                if word & (CHILD_0 if join == U0 else CHILD_1) == U0:
                    break
                if first[slots[at], 1] & (NEXT_0 if join == U0 else NEXT_1) == U0:
                    break
                found = scan.find_pair(pairs, scan.pair_key(node, slots[at], join))
                if found < 0:
                    break
                node = base + found
                word = pairs[found, 1]
        if used > begin:
            ids = np.sort(out[begin:used])
            used = begin
            for k in range(ids.shape[0]):
                if k == 0 or ids[k] != ids[k - 1]:
                    out[used] = ids[k]
                    used += 1
        counts[row] = used - begin
        row += 1
    return row, used
