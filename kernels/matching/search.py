"""Compiled: the matching of texts.

Texts are taken in blocks. The tokens of a block are looked up together, then all occurrences of its
starts are followed level by level, so that the reads of the tables, far apart in memory, overlap
instead of waiting for one another.

Complexity, for T tokens, L the longest entry in tokens and M occurrences: O(T L + M log M) time at
worst, O(T) reads where few entries share long beginnings; memory grows with the longest text
(about 40 bytes for each of its tokens), not with the number of texts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.construct import (
    AFTER,
    BEFORE,
    ENTRY_MASK,
    REF_SHIFT,
    TAIL,
    VARIANT,
)
from kernels.matching.intrinsics import load64, prefetch
from kernels.matching.scan import (
    EMPTY_PAIR,
    EMPTY_TOKEN,
    LONG,
    LOW32,
    NO_STEP,
    U0,
    U1,
    U3,
    U28,
    U32,
    home,
    mix,
    pair_key,
)
from kernels.matching.tokens import BREAK, WORD, mark_alphanumerics, tokens_of_text

EDGES = BEFORE | AFTER
BLOCK = 1 << 15
STRIDE = 1024
COMPACT = 1 << 20
U6, U30, U63 = np.uint64(6), np.uint64(30), np.uint64(63)


@njit(nogil=True)
def sort_ids(ids, low, high, spare):
    """Sort ids[low:high) ascending: insertion in runs of 16, then merges through `spare`."""
    for start in range(low, high, 16):
        for i in range(start + 1, min(start + 16, high)):
            value = ids[i]
            j = i - 1
            while j >= start and ids[j] > value:
                ids[j + 1] = ids[j]
                j -= 1
            ids[j + 1] = value
    width = 16
    n = high - low
    while width < n:
        for left in range(low, high - width, 2 * width):
            middle = left + width
            right = min(middle + width, high)
            if ids[middle - 1] <= ids[middle]:
                continue
            for k in range(left, middle):
                spare[k - left] = ids[k]
            a, b, k = 0, middle, left
            while a < width and b < right:
                if spare[a] <= ids[b]:
                    ids[k] = spare[a]
                    a += 1
                else:
                    ids[k] = ids[b]
                    b += 1
                k += 1
            while a < width:
                ids[k] = spare[a]
                a += 1
                k += 1
        width *= 2


@njit(nogil=True)
def unique_ids(ids, low, high, spare):
    """Sort ids[low:high) and drop repeated ones; returns the new high."""
    if high - low < 2:
        return high
    sort_ids(ids, low, high, spare)
    kept = low + 1
    for k in range(low + 1, high):
        ids[kept] = ids[k]
        kept += np.int64(ids[k] != ids[kept - 1])
    return kept


@njit(nogil=True)
def compact(hits, count):
    """Drop repeated hits; returns how many are left."""
    return unique_ids(hits, 0, count, np.empty(count, np.uint64))


@njit(nogil=True)
def resolve(raw, first, spread, pool, a, b, keys, offsets, lengths, places, words, waiting):
    """Look up the words among tokens [a, b): their places and the tables' words for them."""
    many = 0
    for k in range(a, b):
        if places[k] == WORD:
            at = home(mix(keys[k]), spread)
            prefetch(first, 16 * at)
            places[k] = at
            waiting[many] = k
            many += 1
        elif places[k] >= 0:
            prefetch(first, 16 * np.int64(places[k]))
    some = 0
    for j in range(many):
        k = waiting[j]
        key = keys[k]
        at = np.int64(places[k])
        found = first[2 * at]
        while found != key and found != EMPTY_TOKEN:
            at += 1
            found = first[2 * at]
        if found == EMPTY_TOKEN:
            places[k] = -1
            continue
        places[k] = at
        if key & LONG:
            prefetch(pool, np.int64(first[2 * at + 1] >> REF_SHIFT) * 8)
            waiting[some] = k
            some += 1
    for j in range(some):
        k = waiting[j]
        length = np.int64(lengths[k])
        ref = np.int64(first[2 * np.int64(places[k]) + 1] >> REF_SHIFT) * 8
        same = ref + 12 + length <= pool.shape[0]
        if same:
            same = np.int64(load64(pool, ref) & LOW32) == length
            at = np.int64(offsets[k])
            done = 0
            while same and done + 8 < length:
                same = load64(pool, ref + 4 + done) == load64(raw, at + done)
                done += 8
            same = same and load64(pool, ref + length - 4) == load64(raw, at + length - 8)
        if not same:
            places[k] = -1
    for k in range(a, b):
        words[k] = first[2 * np.int64(places[k]) + 1] if places[k] >= 0 else U0


@njit(nogil=True)
def emit(word, start, end, gaps, owner, variants, hits, count):
    """Append (text, entry) of the entries that a node's word names, if their edges have the spaces
    they need; returns the number of hits."""
    entry = word & ENTRY_MASK
    if word & VARIANT:
        v = np.int64(entry) - 1
        while v >= 0:
            hits[count] = np.uint64(owner) << U32 | np.uint64(variants[v, 0])
            if gaps[start] >= variants[v, 1] and gaps[end] >= variants[v, 2]:
                count += 1
            v = variants[v, 3]
        return count
    hits[count] = np.uint64(owner) << U32 | (entry - U1)
    if word & EDGES and ((word & BEFORE and gaps[start] == 0) or (word & AFTER and gaps[end] == 0)):
        return count
    return count + np.int64(entry != U0)


@njit(nogil=True)
def with_room(hits, count, more):
    """`hits` with room for `more` behind the first `count`."""
    if count + more <= hits.shape[0]:
        return hits
    larger = np.empty(2 * (count + more), np.uint64)
    larger[:count] = hits[:count]
    return larger


@njit(nogil=True)
def keep_open(many, key, at, start, word, next_word, join, keys, ats, starts):
    """Append a candidate for the next level if the node may have a child by the next token."""
    keys[many] = key
    ats[many] = at
    starts[many] = start
    shift = np.uint64(join)
    return many + np.int64(
        (word >> (U28 + shift)) & (next_word >> (U30 + shift)) & (U1 ^ (shift >> U1))
    )


@njit(nogil=True)
def follow(
    first, pairs, spread, bloom, shift, tails, variants, chain, a, b, places, words, joins, gaps,
    owners, keys, homes, ats, starts, tail_refs, tail_ats, tail_starts, hits, count,
):  # fmt: skip
    """Append the hits of all starts in tokens [a, b); returns (hits, their number)."""
    base = first.shape[0] // 2
    many = 0
    n_tails = 0
    hits = with_room(hits, count, (b - a + 1) * chain)
    for k in range(a, b):
        word = words[k]
        count = emit(word, k, k + 1, gaps, owners[k], variants, hits, count)
        join = joins[k + 1]
        key = pair_key(places[k], np.uint64(2 * np.int64(places[k + 1]) + join))
        many = keep_open(many, key, k + 1, k, word, words[k + 1], join, keys, ats, starts)
    while many:
        some = 0
        for c in range(many):
            key = keys[c]
            hashed = mix(key)
            bit = hashed >> shift
            keys[some] = key
            homes[some] = home(hashed, spread)
            ats[some] = ats[c]
            starts[some] = starts[c]
            some += np.int64((bloom[bit >> U6] >> (bit & U63)) & U1)
        for c in range(some):
            prefetch(pairs, 16 * homes[c])
        hits = with_room(hits, count, (some + 1) * chain)
        many = 0
        for c in range(some):
            key = keys[c]
            at = homes[c]
            found = pairs[2 * at]
            while found != key and found != EMPTY_PAIR:
                at += 1
                found = pairs[2 * at]
            if found == EMPTY_PAIR:
                continue
            word = pairs[2 * at + 1]
            here = np.int64(ats[c]) + 1
            start = np.int64(starts[c])
            join = joins[here]
            step = np.uint64(2 * np.int64(places[here]) + join)
            if word & TAIL:
                tail_refs[n_tails] = word & ENTRY_MASK
                tail_ats[n_tails] = here
                tail_starts[n_tails] = start
                n_tails += np.int64((step ^ (word >> REF_SHIFT)) & ENTRY_MASK == U0)
                continue
            count = emit(word, start, here, gaps, owners[start], variants, hits, count)
            key = pair_key(base + at, step)
            many = keep_open(many, key, here, start, word, words[here], join, keys, ats, starts)
        # A start leaves the levels when it enters the tails: their list is no longer than [a, b).
    for c in range(n_tails):
        prefetch(tails, 4 * np.int64(tail_refs[c]))
    hits = with_room(hits, count, (n_tails + 1) * chain)
    for c in range(n_tails):
        ref = np.int64(tail_refs[c])
        here = np.int64(tail_ats[c])
        length = np.int64(tails[ref + 2])
        k = 0
        while (
            k < length
            and joins[here + k] != BREAK
            and np.int64(tails[ref + 3 + k]) == 2 * np.int64(places[here + k]) + joins[here + k]
        ):
            k += 1
        if k == length:
            word = np.uint64(tails[ref]) | np.uint64(tails[ref + 1]) << U32
            start = np.int64(tail_starts[c])
            count = emit(word, start, here + length, gaps, owners[start], variants, hits, count)
    return hits, count


@njit(nogil=True)
def write_ids(hits, count, texts, ends, spare, ids, used, counts, row):
    """Write each text's hits into `ids` from `used` on, sorted and unique; returns the end.

    Text t of the block gets the number counts[row + t].
    """
    ends[: texts + 1] = 0
    for h in range(count):
        ends[(hits[h] >> U32) + U1] += 1
    for t in range(texts):
        ends[t + 1] += ends[t]
    # Each text's hits are moved to where it starts; then ends[t] is where text t ends.
    low = ends[0]
    for h in range(count):
        t = hits[h] >> U32
        ids[used + ends[t]] = hits[h] & LOW32
        ends[t] += 1
    begin = used
    for t in range(texts):
        high = unique_ids(ids, begin + low, begin + ends[t], spare)
        size = high - begin - low
        if used != begin + low:
            for k in range(size):
                ids[used + k] = ids[begin + low + k]
        low = ends[t]
        used += size
        counts[row + t] = size
    return used


@njit(cache=True, nogil=True)
def match_texts(
    data, text_starts, text_ends, first, first_spread, pool, pairs, pair_spread, bloom, tails,
    variants, chain, classes, numbers, pages, direct, collapse, seed,
):  # fmt: skip
    """(ids of all texts, one text after another; number of ids of each text).

    Text t is data[text_starts[t]:text_ends[t]]; starts and ends do not descend.
    """
    n = text_starts.shape[0]
    counts = np.zeros(n, np.int64)
    ids = np.empty(1024, np.uint32)
    used = 0
    multiple = not collapse and direct[0x20] >= 0
    shift = np.uint64(64)
    while np.int64(1) << np.int64(64 - shift) < 64 * bloom.shape[0]:
        shift -= U1
    keys = np.empty(STRIDE, np.uint64)
    homes = np.empty(STRIDE, np.int64)
    ats = np.empty(STRIDE, np.int32)
    starts = np.empty(STRIDE, np.int32)
    tail_refs = np.empty(STRIDE, np.uint32)
    tail_ats = np.empty(STRIDE, np.int32)
    tail_starts = np.empty(STRIDE, np.int32)
    hits = np.empty(8 * STRIDE, np.uint64)
    spare = np.empty(1, np.uint32)
    room = 0
    row = 0
    while row < n:
        base = text_starts[row]
        last = row + 1
        while last < n and text_ends[last] - base <= BLOCK and last - row < BLOCK:
            last += 1
        size = text_ends[last - 1] - base
        if room == 0 or size > room:
            room = max(BLOCK, size)
            raw = np.zeros(room + 128, np.uint8)
            bits = np.empty(room // 64 + 4, np.uint64)
            tokens = (3 if multiple else 1) * room + 4 * BLOCK + 8
            token_keys = np.empty(tokens, np.uint64)
            offsets = np.empty(tokens, np.int32)
            lengths = np.empty(tokens, np.int32)
            places = np.empty(tokens, np.int32)
            words = np.empty(tokens, np.uint64)
            joins = np.empty(tokens, np.uint8)
            gaps = np.empty(tokens, np.int32)
            owners = np.empty(tokens, np.int32)
            waiting = np.empty(tokens, np.int32)
            block_ends = np.empty(BLOCK + 2, np.int64)
        raw[:size] = data[base : base + size]
        mark_alphanumerics(raw, size, bits)
        count = 0
        for t in range(row, last):
            count = tokens_of_text(
                raw, text_starts[t] - base, text_ends[t] - base, bits, classes, numbers, pages,
                direct, collapse, multiple, seed, t - row, token_keys, offsets, lengths, places,
                joins, gaps, owners, count,
            )  # fmt: skip
        for a in range(0, count, STRIDE):
            resolve(
                raw, first, first_spread, pool, a, min(a + STRIDE, count), token_keys, offsets,
                lengths, places, words, waiting,
            )  # fmt: skip
        found = 0
        for a in range(0, count, STRIDE):
            hits, found = follow(
                first, pairs, pair_spread, bloom, shift, tails, variants, chain, a,
                min(a + STRIDE, count - 1), places, words, joins, gaps, owners, keys, homes, ats,
                starts, tail_refs, tail_ats, tail_starts, hits, found,
            )  # fmt: skip
            if found > COMPACT and last == row + 1:
                found = compact(hits, found)
        if used + found > ids.shape[0]:
            larger = np.empty(2 * (used + found), np.uint32)
            larger[:used] = ids[:used]
            ids = larger
        if found > spare.shape[0]:
            spare = np.empty(2 * found, np.uint32)
        used = write_ids(hits, found, last - row, block_ends, spare, ids, used, counts, row)
        row = last
    return ids[:used].copy(), counts
