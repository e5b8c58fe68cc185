"""Compiled: the matching of texts.

Texts are taken in blocks. The tokens of a block are looked up together, then all occurrences of its
starts are followed level by level, so that the reads of the tables, far apart in memory, overlap
instead of waiting for one another.

Complexity, for T tokens, M hits and L the tokens of the longest entry (at most 4,096 bytes): O(T L +
M) time at worst, which takes entries that share long beginnings and a text that repeats them; O(T)
reads of the tables otherwise. Memory grows with the longest text (about 50 bytes for each of its
bytes), not with the number of texts.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types, void

from kernels.matching import state as st
from kernels.matching.memory import (
    Array,
    Int,
    Word,
    get8,
    get32,
    get64,
    load64,
    prefetch,
    put8,
    put32,
    put64,
)
from kernels.matching.order import sort_hits, unique_hits, write_ids
from kernels.matching.scan import (
    AFTER,
    BEFORE,
    ENTRY_MASK,
    LONG,
    REF_SHIFT,
    TAIL,
    U0,
    U1,
    U6,
    U28,
    U30,
    U32,
    U63,
    VARIANT,
    find,
    home,
    mix,
    pair_key,
    sieve_of,
    word_at,
)
from kernels.matching.tokens import BREAK, WORD, mark_alphanumerics, tokens_of_block

EDGES = BEFORE | AFTER


@njit(nogil=True)
def resolve(s: Array, a: Int, b: Int) -> None:
    """Look up the words among tokens [a, b), then write of every token its step and its word.

    A step is twice the token's place plus its join to the token before, or -1.
    """
    raw, first, spread = s[st.RAW], s[st.FIRST], np.uint64(s[st.FIRST_SPREAD])
    pool, pool_size = s[st.POOL], s[st.POOL_SIZE]
    keys, offsets, lengths, places = s[st.KEYS], s[st.OFFSETS], s[st.LENGTHS], s[st.PLACES]
    joins, words, steps, nexts = s[st.JOINS], s[st.WORDS], s[st.STEPS], s[st.NEXTS]
    waiting = s[st.WAITING]
    many = 0
    for k in range(a, b):
        place = get32(places, k)
        if place == WORD:
            place = home(mix(get64(keys, k)), spread)
            put32(places, k, place)
            put32(waiting, many, k)
            many += 1
            place *= 4
        prefetch(first + 16 * max(place, 0))
    some: Int = 0
    for j in range(many):
        k = get32(waiting, j)
        key = get64(keys, k)
        place = find(first, get32(places, k), key)
        put32(places, k, place)
        put32(waiting, some, k)
        some += np.int64(place >= 0 and key & LONG != U0)
    for j in range(some):
        k = get32(waiting, j)
        prefetch(pool + np.int64(get64(first, word_at(get32(places, k))) >> REF_SHIFT) * 8)
    for j in range(some):
        k = get32(waiting, j)
        length = get32(lengths, k)
        ref = np.int64(get64(first, word_at(get32(places, k))) >> REF_SHIFT) * 8
        same = ref + 12 + length <= pool_size and get32(pool + ref, 0) == length
        stored = pool + ref + 4
        given = raw + get32(offsets, k)
        done = 0
        while same and done + 8 < length:
            same = load64(stored + done) == load64(given + done)
            done += 8
        if not (same and load64(stored + length - 8) == load64(given + length - 8)):
            put32(places, k, -1)
    for k in range(a, b):
        place = get32(places, k)
        join = get8(joins, k)
        word = U0
        step = -1
        next_ = 0
        if place >= 0:
            word = get64(first, word_at(place))
            if join != BREAK:
                step = 2 * place + join
                next_ = np.int64(word >> U30) & (1 << join)
        put64(words, k, word)
        put32(steps, k, step)
        put8(nexts, k, next_)


@njit(nogil=True)
def emit(
    word: Word, before: Int, after: Int, owner: Word, variants: Int, hits: Int, count: Int
) -> Int:
    """Append the entries of a node's word whose edges have the spaces they need; the new count."""
    entry = word & ENTRY_MASK
    put64(hits, count, owner << U32 | (entry - U1))
    if word & (EDGES | VARIANT) == U0:
        return count + np.int64(entry != U0)
    if word & VARIANT:
        v = np.int64(entry) - 1
        while v >= 0:
            put64(hits, count, owner << U32 | get64(variants, 4 * v))
            if before >= np.int64(get64(variants, 4 * v + 1)) and after >= np.int64(
                get64(variants, 4 * v + 2)
            ):
                count += 1
            v = np.int64(get64(variants, 4 * v + 3))
        return count
    if (word & BEFORE and before == 0) or (word & AFTER and after == 0):
        return count
    return count + np.int64(entry != U0)


@njit(nogil=True)
def follow(s: Array, a: Int, b: Int, hits: Int, count: Int) -> Int:
    """Append the hits of all starts in tokens [a, b) to `count` others; returns their number, or -1
    if there is not enough room.

    A start is followed level by level with all others; those still open are the candidates, each
    with the key of the node to look for, the token it would end at, and the token it started at.
    """
    base, chain, room = s[st.FIRST_SIZE], s[st.CHAIN], s[st.HITS_ROOM]
    pairs, spread, tails = s[st.PAIRS], np.uint64(s[st.PAIR_SPREAD]), s[st.TAILS]
    bloom, shift, variants = s[st.BLOOM], np.uint64(s[st.BLOOM_SHIFT]), s[st.VARIANTS]
    places, words, steps, nexts = s[st.PLACES], s[st.WORDS], s[st.STEPS], s[st.NEXTS]
    gaps, owners = s[st.GAPS], s[st.OWNERS]
    keys, homes, ats, starts = s[st.CANDIDATES], s[st.HOMES], s[st.ATS], s[st.BEGINS]
    tail_refs, tail_ats, tail_starts = s[st.TAIL_REFS], s[st.TAIL_ATS], s[st.TAIL_BEGINS]
    many: Int = 0
    n_tails: Int = 0
    if count + (b - a + 1) * chain > room:
        return np.int64(-1)
    for k in range(a, b):
        word = get64(words, k)
        if word == U0:
            continue
        owner = np.uint64(get32(owners, k))
        count = emit(word, get32(gaps, k), get32(gaps, k + 1), owner, variants, hits, count)
        put64(keys, many, pair_key(get32(places, k), get32(steps, k + 1)))
        put32(ats, many, k + 1)
        put32(starts, many, k)
        many += np.int64(np.int64(word >> U28) & get8(nexts, k + 1) & 3 != 0)
    some = many
    many = 0
    for c in range(some):
        key = get64(keys, c)
        bit = mix(key) >> shift
        put64(keys, many, key)
        put32(ats, many, get32(ats, c))
        put32(starts, many, get32(starts, c))
        many += np.int64((get64(bloom, np.int64(bit >> U6)) >> (bit & U63)) & U1)
    while many:
        for c in range(many):
            bucket = home(mix(get64(keys, c)), spread)
            prefetch(pairs + 64 * bucket)
            put32(homes, c, bucket)
        if count + (many + 1) * chain > room:
            return np.int64(-1)
        some = many
        many = 0
        for c in range(some):
            key = get64(keys, c)
            place = find(pairs, get32(homes, c), key)
            if place < 0:
                continue
            word = get64(pairs, word_at(place))
            here = get32(ats, c) + 1
            start = get32(starts, c)
            step = get32(steps, here)
            # No branch: half of the nodes found start a tail, and only the others have children.
            tail = word & TAIL
            put32(tail_refs, n_tails, np.int64(word & ENTRY_MASK))
            put32(tail_ats, n_tails, here)
            put32(tail_starts, n_tails, start)
            fits = (np.uint64(step) ^ (word >> REF_SHIFT)) & ENTRY_MASK == U0
            n_tails += np.int64(fits and tail != U0)
            put64(keys, many, pair_key(base + place, step))
            put32(ats, many, here)
            put32(starts, many, start)
            child = np.int64(word >> U28) & get8(nexts, here) & 3 != 0
            many += np.int64(child and word & sieve_of(step) != U0)
            if tail != U0:
                word = U0
            owner = np.uint64(get32(owners, start))
            count = emit(word, get32(gaps, start), get32(gaps, here), owner, variants, hits, count)
    # A start that enters a tail leaves the levels, so there is room for all in [a, b).
    for c in range(n_tails):
        prefetch(tails + 4 * get32(tail_refs, c))
    if count + (n_tails + 1) * chain > room:
        return np.int64(-1)
    for c in range(n_tails):
        tail = tails + 4 * get32(tail_refs, c)
        here = get32(tail_ats, c)
        length = get32(tail, 2)
        k = 0
        while k < length and get32(tail, 3 + k) == get32(steps, here + k):
            k += 1
        if k == length:
            word = load64(tail)
            start = get32(tail_starts, c)
            owner = np.uint64(get32(owners, start))
            after = get32(gaps, here + length)
            count = emit(word, get32(gaps, start), after, owner, variants, hits, count)
    return np.int64(count)


@njit(nogil=True)
def copy(source: Int, size: Int, to: Int) -> None:
    """Copy bytes from one address to another."""
    for i in range(size // 8):
        put64(to, i, load64(source + 8 * i))
    for i in range(size // 8 * 8, size):
        put8(to, i, get8(source, i))


@njit(nogil=True)
def bits_of(number: Int) -> Int:
    """How many bits numbers below `number` need."""
    bits = 0
    while number - 1 >> bits:
        bits += 1
    return bits


@njit(void(types.int64[::1]), cache=True, nogil=True)
def match_texts(s: Array) -> None:
    """Match texts from row s[ROW] on until all are done or s[HITS_NEED] or s[IDS_NEED] is set.

    `s` is the state described in `state`; ids are appended, counts and the row brought forward.
    """
    entry_bits = bits_of(s[st.ENTRIES])
    used = s[st.USED]
    row = s[st.ROW]
    while row < s[st.ROWS]:
        base = np.int64(get64(s[st.STARTS], row))
        last = row + 1
        size = np.int64(get64(s[st.ENDS], row)) - base
        while last < s[st.ROWS] and last - row < st.TEXTS:
            further = np.int64(get64(s[st.ENDS], last)) - base
            if further > st.BLOCK:
                break
            size = further
            last += 1
        raw = s[st.RAW]
        copy(s[st.DATA] + base, size, raw)
        mark_alphanumerics(raw, size, s[st.BITS])
        tokens = tokens_of_block(s, base, row, last)
        for a in range(0, tokens, st.STRIDE):
            resolve(s, a, min(a + st.STRIDE, tokens))
        text_bits = bits_of(last - row)
        hits = s[st.HITS]
        spare = s[st.SPARE]
        count = np.int64(0)
        a = 0
        failed = -1
        while a < tokens - 1:
            more = follow(s, a, min(a + st.STRIDE, tokens - 1), hits, count)
            if more >= 0:
                count = more
                a += st.STRIDE
                continue
            # Repeated hits are dropped before more room is asked for.
            done = sort_hits(hits, count, spare, s[st.TALLY], entry_bits, text_bits)
            other = spare if done == hits else hits
            count = unique_hits(done, count, other)
            hits, spare = other, done
            if 2 * count > s[st.HITS_ROOM] or a == failed:
                s[st.HITS_NEED] = 4 * s[st.HITS_ROOM]
                break
            failed = a
        if s[st.HITS_NEED]:
            break
        if used + count > s[st.IDS_ROOM]:
            s[st.IDS_NEED] = used + count
            break
        done = sort_hits(hits, count, spare, s[st.TALLY], entry_bits, text_bits)
        used = write_ids(done, count, s[st.IDS], used, s[st.COUNTS] + 8 * row)
        row = last
    s[st.ROW] = row
    s[st.USED] = used
