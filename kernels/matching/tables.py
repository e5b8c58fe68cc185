"""Compiled: a trie of tokens to the tables of an automaton.

First tokens are places of the token table; deeper nodes are places of the pair table, keyed by
(parent, step). A node below which one entry alone ends closes the trie: the rest of that entry's
steps is its tail.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.memory import Array, Int, Word
from kernels.matching.scan import (
    CHILD_0,
    CHILD_1,
    COMPLEX,
    EMPTY,
    LONG,
    NEXT_0,
    NEXT_1,
    REF_SHIFT,
    TAIL,
    U32,
    decode,
    home,
    kind_of,
    mix,
    pair_key,
    sieve_of,
    word_at,
)


@njit(nogil=True)
def insert(table: Array, bucket: Int, key: Word) -> Int:
    """Put a key into the first free slot from `bucket` on; returns its place."""
    while table[8 * bucket + 3] != EMPTY:
        bucket += 1
    slot = 0
    while table[8 * bucket + slot] != EMPTY:
        slot += 1
    table[8 * bucket + slot] = key
    return 4 * bucket + slot


@njit(nogil=True)
def new_table(spread: Int, count: Int) -> Array:
    """A table for `count` keys; what probing may need behind the last home bucket is included."""
    return np.zeros(8 * (spread + count // 4 + 2), np.uint64)


@njit(nogil=True)
def trimmed(table: Array, spread: Int) -> Array:
    """The table up to its last bucket in use and one more, which is empty."""
    top = table.shape[0] // 8 - 1
    while top > spread and table[8 * (top - 1)] == EMPTY:
        top -= 1
    return table[: 8 * (top + 1)]


@njit(cache=True, nogil=True)
def place_tokens(
    data: Array, keys: Array, begins: Array, ends: Array, distinct: Array, words: Array, spread: Int
) -> tuple[Array, Array, Array]:
    """Token table (uint64, a bucket of 8 after another), pool of long tokens, place of each ordinal.

    The pool holds each long token's length (4 bytes) and bytes, at multiples of 8.
    """
    table = new_table(spread, distinct.shape[0])
    where = np.empty(distinct.shape[0], np.int32)
    size = 8
    for k in range(distinct.shape[0]):
        if keys[distinct[k]] & LONG:
            size += (4 + ends[distinct[k]] - begins[distinct[k]] + 7) // 8 * 8
    pool = np.zeros(size + 8, np.uint8)
    ref = 8
    for k in range(distinct.shape[0]):
        t = distinct[k]
        at = insert(table, home(mix(keys[t]), np.uint64(spread)), keys[t])
        table[word_at(at)] = words[k]
        where[k] = at
        if keys[t] & LONG:
            length = ends[t] - begins[t]
            table[word_at(at)] |= np.uint64(ref // 8) << REF_SHIFT
            for b in range(4):
                pool[ref + b] = (length >> (8 * b)) & 255
            for b in range(length):
                pool[ref + 4 + b] = data[begins[t] + b]
            ref += (4 + length + 7) // 8 * 8
    return trimmed(table, spread), pool, where


@njit(cache=True, nogil=True)
def find_tails(parents: Array, heads: Array, n_tokens: Int) -> tuple[Array, Int]:
    """Which deeper nodes the trie keeps (1), which of them start a tail (2), which are in one (0).

    Also the number of nodes kept.
    """
    total = heads.shape[0]
    ends_below = np.zeros(total, np.int32)
    for node in range(total - 1, -1, -1):
        if heads[node] >= 0:
            ends_below[node] += 1
        if node >= n_tokens:
            ends_below[parents[node - n_tokens]] += ends_below[node]
    state = np.ones(total, np.uint8)
    kept = 0
    for node in range(n_tokens, total):
        parent = parents[node - n_tokens]
        if state[parent] != 1:
            state[node] = 0
        elif ends_below[node] == 1 and heads[node] < 0:
            state[node] = 2
        if state[node]:
            kept += 1
    return state, kept


@njit(cache=True, nogil=True)
def place_pairs(
    first: Array, where: Array, parents: Array, tokens: Array, joins: Array, state: Array,
    words: Array, n_tokens: Int, spread: Int, kept: Int,
) -> tuple[Array, Array]:  # fmt: skip
    """Pair table, laid out like the token table, and tails; completes the token table's flags.

    A tail is (word of its entry: low half, high half, number of steps, steps).
    """
    table = new_table(spread, kept)
    base = first.shape[0] // 2
    numbers = np.full(n_tokens + parents.shape[0], -1, np.int32)
    numbers[:n_tokens] = where
    tail_of = np.full(n_tokens + parents.shape[0], -1, np.int32)
    n_tails = 0
    for k in range(parents.shape[0]):
        node = n_tokens + k
        token = where[tokens[k]]
        join = joins[k]
        if state[node] == 0:
            # The parent's tail: nodes of a tail are a chain, in order.
            tail_of[node] = tail_of[parents[k]]
            continue
        key = pair_key(numbers[parents[k]], 2 * token + join)
        at = insert(table, home(mix(key), np.uint64(spread)), key)
        table[word_at(at)] = words[node]
        numbers[node] = base + at
        first[word_at(token)] |= NEXT_1 if join else NEXT_0
        child = CHILD_1 if join else CHILD_0
        if numbers[parents[k]] < base:
            first[word_at(numbers[parents[k]])] |= child
        else:
            table[word_at(numbers[parents[k]] - base)] |= child | sieve_of(2 * token + join)
        if state[node] == 2:
            tail_of[node] = n_tails
            n_tails += 1
    lengths = np.zeros(n_tails + 1, np.int64)
    for k in range(parents.shape[0]):
        if state[n_tokens + k] == 0:
            lengths[tail_of[n_tokens + k]] += 1
    starts = np.zeros(n_tails + 1, np.int64)
    for t in range(n_tails):
        starts[t + 1] = starts[t] + 3 + lengths[t]
    tails = np.zeros(starts[n_tails] + 1, np.uint32)
    fill = np.zeros(n_tails, np.int64)
    for k in range(parents.shape[0]):
        node = n_tokens + k
        if state[node] == 2:
            at = word_at(numbers[node] - base)
            table[at] = np.uint64(starts[tail_of[node]]) | TAIL
        elif state[node] == 0:
            t = tail_of[node]
            step = 2 * where[tokens[k]] + joins[k]
            tails[starts[t] + 3 + fill[t]] = step
            if fill[t] == 0:
                # The node's place keeps 28 bits of the tail's first step, to refuse most tails.
                at = word_at(numbers[parents[k]] - base)
                table[at] |= np.uint64(step) << REF_SHIFT
            fill[t] += 1
            tails[starts[t]] = words[node] & np.uint64(0xFFFFFFFF)
            tails[starts[t] + 1] = words[node] >> np.uint64(32)
            tails[starts[t] + 2] = lengths[t]
    return trimmed(table, spread), tails


@njit(cache=True, nogil=True)
def filter_of(pairs: Array, base: Int, bits: Int) -> Array:
    """One bit for each pair of the second level: bit (hash >> (64 - bits)) of 2 ** bits."""
    words = np.zeros(1 << (bits - 6), np.uint64)
    for place in range(pairs.shape[0] // 2):
        key = pairs[word_at(place) - 4]
        if key != EMPTY and np.int64(key >> U32) < base:
            bit = mix(key) >> np.uint64(64 - bits)
            words[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
    return words


@njit(cache=True, nogil=True)
def direct_of(first: Array) -> Array:
    """Place of each token of one character below U+10000, or -1."""
    direct = np.full(0x10000, -1, np.int32)
    raw = np.zeros(16, np.uint8)
    address = raw.ctypes.data
    for place in range(first.shape[0] // 2):
        key = first[word_at(place) - 4]
        length = np.int64(key >> np.uint64(56))
        if key == EMPTY or length > 3:
            continue
        for b in range(length):
            raw[b] = (key >> np.uint64(8 * b)) & np.uint64(255)
        point, size = decode(address, 0, length)
        if size == length:
            direct[point] = place
    return direct


@njit(cache=True, nogil=True)
def byte_classes(page_starts: Array, pages: Array) -> Array:
    """Class of each byte that is a character, COMPLEX for the others."""
    classes = np.full(256, COMPLEX, np.uint8)
    for point in range(128):
        classes[point] = kind_of(point, page_starts.ctypes.data, pages.ctypes.data)
    return classes
