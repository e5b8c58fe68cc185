"""Compiled: entries to tables. Called by `compiled.build_tables` only.

The trie of all entries, token by token. First tokens are the places of the token table; deeper nodes
are places of the pair table, keyed by (parent, step). A node below which one entry alone lies ends
the trie: the rest of that entry's steps is its tail.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.scan import (
    COMPLEX,
    EMPTY_PAIR,
    EMPTY_TOKEN,
    LONG,
    RUN,
    SINGLE,
    SPACE,
    SPACE_KEY,
    decode,
    home,
    key_of,
    kind_of,
    mix,
    pair_key,
)

ENTRY_MASK = np.uint64((1 << 28) - 1)
CHILD_0 = np.uint64(1 << 28)
CHILD_1 = np.uint64(1 << 29)
NEXT_0 = np.uint64(1 << 30)
NEXT_1 = np.uint64(1 << 31)
BEFORE = np.uint64(1 << 32)
AFTER = np.uint64(1 << 33)
VARIANT = np.uint64(1 << 34)
TAIL = np.uint64(1 << 35)
REF_SHIFT = np.uint64(36)


@njit(nogil=True)
def tokens_of_entry(raw, begin, end, page_starts, pages, collapse, seed, keys, begins, ends, gaps):
    """Write the tokens of one entry, and one more gap (the spaces behind); returns their number.

    `collapse`: a run of white space is one space. Else every space counts, and each space of a run
    but the last is also a token of its own. Room for end - begin + 1 tokens is needed.
    """
    count = 0
    pending = 0
    i = begin
    while i < end:
        point, size = decode(raw, i, end)
        kind = kind_of(point, page_starts, pages)
        start = i
        i += size
        if kind == SPACE:
            pending = 1 if collapse else pending + 1
            continue
        if kind == RUN:
            while i < end:
                point, size = decode(raw, i, end)
                if kind_of(point, page_starts, pages) != RUN:
                    break
                i += size
        for _ in range(pending - 1):
            keys[count], begins[count], ends[count] = SPACE_KEY, start, start
            gaps[count] = pending
            count += 1
        keys[count] = key_of(raw + start, raw + i, seed)
        begins[count], ends[count], gaps[count] = start, i, pending
        count += 1
        pending = 0
    gaps[count] = pending
    return count


@njit(cache=True, nogil=True)
def tokens_of_entries(data, offsets, page_starts, pages, collapse, seed):
    """Token arrays of all entries and the first position of each: entry e has the tokens
    firsts[e] .. firsts[e + 1] - 2; the last place holds the gap behind it."""
    n = offsets.shape[0] - 1
    longest = 0
    for e in range(n):
        longest = max(longest, offsets[e + 1] - offsets[e])
    keys = np.empty(longest + 1, np.uint64)
    begins = np.empty(longest + 1, np.int64)
    ends = np.empty(longest + 1, np.int64)
    gaps = np.empty(longest + 1, np.int64)
    firsts = np.zeros(n + 1, np.int64)
    raw = data.ctypes.data
    starts, classes = page_starts.ctypes.data, pages.ctypes.data
    for e in range(n):
        low, high = offsets[e], offsets[e + 1]
        firsts[e + 1] = firsts[e] + 1
        firsts[e + 1] += tokens_of_entry(
            raw, low, high, starts, classes, collapse, seed, keys, begins, ends, gaps
        )
    room = firsts[n]
    keys = np.empty(room, np.uint64)
    begins = np.empty(room, np.int64)
    ends = np.empty(room, np.int64)
    gaps = np.empty(room, np.int64)
    for e in range(n):
        at, low, high = firsts[e], offsets[e], offsets[e + 1]
        tokens_of_entry(
            raw, low, high, starts, classes, collapse, seed, keys[at:], begins[at:], ends[at:],
            gaps[at:],
        )  # fmt: skip
    return keys, begins, ends, gaps, firsts


@njit(nogil=True)
def core(keys, firsts, e):
    """(first, behind last) token of an entry without the space tokens before it."""
    start, stop = firsts[e], firsts[e + 1] - 1
    while start < stop and keys[start] == SPACE_KEY:
        start += 1
    return start, stop


@njit(cache=True, nogil=True)
def intern_tokens(data, keys, begins, ends, firsts, spread):
    """(ordinal of each token, position of each ordinal, whether no two tokens share a key)."""
    table = np.full(spread, -1, np.int64)
    ordinals = np.full(keys.shape[0], -1, np.int64)
    distinct = np.empty(keys.shape[0], np.int64)
    count = 0
    for e in range(firsts.shape[0] - 1):
        start, stop = core(keys, firsts, e)
        for t in range(start, stop):
            key = keys[t]
            at = home(mix(key), np.uint64(spread))
            while table[at] >= 0 and keys[distinct[table[at]]] != key:
                at = at + 1 if at + 1 < spread else 0
            if table[at] < 0:
                table[at] = count
                distinct[count] = t
                count += 1
            elif key & LONG:
                first = distinct[table[at]]
                length = ends[t] - begins[t]
                if ends[first] - begins[first] != length:
                    return ordinals, distinct[:0], False
                for k in range(length):
                    if data[begins[first] + k] != data[begins[t] + k]:
                        return ordinals, distinct[:0], False
            ordinals[t] = table[at]
    return ordinals, distinct[:count].copy(), True


@njit(cache=True, nogil=True)
def intern_nodes(keys, gaps, ordinals, firsts, n_tokens, spread):
    """The trie: (parent, token, join) of each node below the first level, last node of each entry.

    Nodes 0 .. n_tokens - 1 are the tokens themselves as first tokens; parents precede children.
    """
    table = np.full(spread, -1, np.int64)
    parents = np.empty(spread // 2 + 1, np.int64)
    tokens = np.empty(spread // 2 + 1, np.int64)
    joins = np.empty(spread // 2 + 1, np.int64)
    last = np.full(firsts.shape[0] - 1, -1, np.int64)
    count = 0
    for e in range(firsts.shape[0] - 1):
        start, stop = core(keys, firsts, e)
        if start == stop:
            continue
        node = ordinals[start]
        for t in range(start + 1, stop):
            join = 0 if keys[t] == SPACE_KEY or gaps[t] == 0 else 1
            token = ordinals[t]
            key = pair_key(node, 2 * token + join)
            at = home(mix(key), np.uint64(spread))
            while table[at] >= 0:
                k = table[at]
                if parents[k] == node and tokens[k] == token and joins[k] == join:
                    break
                at = at + 1 if at + 1 < spread else 0
            if table[at] < 0:
                table[at] = count
                parents[count], tokens[count], joins[count] = node, token, join
                count += 1
            node = n_tokens + table[at]
        last[e] = node
    return parents[:count].copy(), tokens[:count].copy(), joins[:count].copy(), last


@njit(cache=True, nogil=True)
def edges_of_entries(data, keys, begins, gaps, firsts, page_starts, pages, always):
    """Spaces that must stand (before, after) each entry in mode official (spec 4.3)."""
    n = firsts.shape[0] - 1
    before = np.zeros(n, np.int64)
    after = np.zeros(n, np.int64)
    for e in range(n):
        start, stop = core(keys, firsts, e)
        if start == stop:
            continue
        before[e], after[e] = gaps[start], gaps[stop]
        point, _ = decode(data.ctypes.data, begins[start], begins[start] + 4)
        if (
            always
            or before[e]
            or kind_of(point, page_starts.ctypes.data, pages.ctypes.data) != SINGLE
        ):
            before[e] += 1
        point, _ = decode(data.ctypes.data, begins[stop - 1], begins[stop - 1] + 4)
        if (
            always
            or after[e]
            or kind_of(point, page_starts.ctypes.data, pages.ctypes.data) != SINGLE
        ):
            after[e] += 1
    return before, after


@njit(cache=True, nogil=True)
def gather_entries(last, before, after, n_nodes):
    """Entries by node: (first variant of each node, variants, whether each entry collapsed).

    A variant is (entry, spaces before, spaces after, next variant or -1): entries that differ only
    in the spaces at their edges end at one node. Of equal entries the first is kept.
    """
    n = last.shape[0]
    heads = np.full(n_nodes, -1, np.int64)
    variants = np.empty((n, 4), np.int64)
    used = 0
    collapsed = np.zeros(n, np.bool_)
    for e in range(n):
        collapsed[e] = True
        if last[e] < 0:
            continue
        v = heads[last[e]]
        while v >= 0 and (variants[v, 1] != before[e] or variants[v, 2] != after[e]):
            v = variants[v, 3]
        if v < 0:
            collapsed[e] = False
            variants[used, 0], variants[used, 1], variants[used, 2] = e, before[e], after[e]
            variants[used, 3] = heads[last[e]]
            heads[last[e]] = used
            used += 1
    return heads, variants[:used].copy(), collapsed


@njit(cache=True, nogil=True)
def entry_words(heads, variants):
    """What each node's place says of its entry, and the variants that are read at matching."""
    words = np.zeros(heads.shape[0], np.uint64)
    kept = np.empty(variants.shape, np.int64)
    count = 0
    for node in range(heads.shape[0]):
        v = heads[node]
        if v < 0:
            continue
        if variants[v, 3] < 0 and variants[v, 1] <= 1 and variants[v, 2] <= 1:
            words[node] = np.uint64(variants[v, 0] + 1)
            if variants[v, 1]:
                words[node] |= BEFORE
            if variants[v, 2]:
                words[node] |= AFTER
            continue
        words[node] = np.uint64(count + 1) | VARIANT
        while v >= 0:
            kept[count, :3] = variants[v, :3]
            v = variants[v, 3]
            kept[count, 3] = count + 1 if v >= 0 else -1
            count += 1
    return words, kept[:count].copy()


@njit(cache=True, nogil=True)
def place_tokens(data, keys, begins, ends, distinct, words, spread):
    """Token table (uint64 pairs, flat), pool of long tokens, place of each ordinal.

    The table's last place stays empty, so probing ends.
    """
    table = np.zeros(2 * (spread + distinct.shape[0] + 1), np.uint64)
    where = np.empty(distinct.shape[0], np.int64)
    size = 8
    for k in range(distinct.shape[0]):
        if keys[distinct[k]] & LONG:
            size += (4 + ends[distinct[k]] - begins[distinct[k]] + 7) // 8 * 8
    pool = np.zeros(size + 8, np.uint8)
    ref = 8
    top = spread
    for k in range(distinct.shape[0]):
        t = distinct[k]
        at = home(mix(keys[t]), np.uint64(spread))
        while table[2 * at] != EMPTY_TOKEN:
            at += 1
        top = max(top, at + 1)
        table[2 * at] = keys[t]
        table[2 * at + 1] = words[k]
        where[k] = at
        if keys[t] & LONG:
            length = ends[t] - begins[t]
            table[2 * at + 1] |= np.uint64(ref // 8) << REF_SHIFT
            for b in range(4):
                pool[ref + b] = (length >> (8 * b)) & 255
            for b in range(length):
                pool[ref + 4 + b] = data[begins[t] + b]
            ref += (4 + length + 7) // 8 * 8
    return table[: 2 * (top + 1)].copy(), pool, where


@njit(cache=True, nogil=True)
def find_tails(parents, heads, n_tokens):
    """Which deeper nodes the trie keeps (1), which of them start a tail (2), which are in one (0).

    Also the number of nodes kept.
    """
    total = heads.shape[0]
    ends_below = np.zeros(total, np.int64)
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
def place_pairs(first, where, parents, tokens, joins, state, words, n_tokens, spread, kept):
    """Pair table (uint64 pairs, flat) and tails; completes the flags of the token table.

    A tail is (word of its entry: low half, high half, number of steps, steps).
    """
    table = np.zeros(2 * (spread + kept + 1), np.uint64)
    table[::2] = EMPTY_PAIR
    base = first.shape[0] // 2
    numbers = np.full(n_tokens + parents.shape[0], -1, np.int64)
    numbers[:n_tokens] = where
    tail_of = np.full(n_tokens + parents.shape[0], -1, np.int64)
    top = spread
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
        at = home(mix(key), np.uint64(spread))
        while table[2 * at] != EMPTY_PAIR:
            at += 1
        top = max(top, at + 1)
        table[2 * at] = key
        table[2 * at + 1] = words[node]
        numbers[node] = base + at
        first[2 * token + 1] |= NEXT_1 if join else NEXT_0
        child = CHILD_1 if join else CHILD_0
        if numbers[parents[k]] < base:
            first[2 * numbers[parents[k]] + 1] |= child
        else:
            table[2 * (numbers[parents[k]] - base) + 1] |= child
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
            at = 2 * (numbers[node] - base) + 1
            table[at] = np.uint64(starts[tail_of[node]]) | TAIL
        elif state[node] == 0:
            t = tail_of[node]
            step = 2 * where[tokens[k]] + joins[k]
            tails[starts[t] + 3 + fill[t]] = step
            if fill[t] == 0:
                # The node's place keeps 28 bits of the tail's first step, to refuse most tails.
                at = 2 * (numbers[parents[k]] - base) + 1
                table[at] |= np.uint64(step) << REF_SHIFT
            fill[t] += 1
            tails[starts[t]] = words[node] & np.uint64(0xFFFFFFFF)
            tails[starts[t] + 1] = words[node] >> np.uint64(32)
            tails[starts[t] + 2] = lengths[t]
    return table[: 2 * (top + 1)].copy(), tails


@njit(cache=True, nogil=True)
def filter_of(pairs, bits):
    """One bit for each pair: bit (hash >> (64 - bits)) of 2 ** bits."""
    words = np.zeros(1 << (bits - 6), np.uint64)
    for at in range(pairs.shape[0] // 2):
        if pairs[2 * at] != EMPTY_PAIR:
            bit = mix(pairs[2 * at]) >> np.uint64(64 - bits)
            words[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
    return words


@njit(cache=True, nogil=True)
def direct_of(first):
    """Place of each token of one character below U+10000, or -1."""
    direct = np.full(0x10000, -1, np.int32)
    raw = np.zeros(16, np.uint8)
    address = raw.ctypes.data
    for at in range(first.shape[0] // 2):
        key = first[2 * at]
        length = np.int64(key >> np.uint64(56))
        if key == EMPTY_TOKEN or length > 3:
            continue
        for b in range(length):
            raw[b] = (key >> np.uint64(8 * b)) & np.uint64(255)
        point, size = decode(address, 0, length)
        if size == length:
            direct[point] = at
    return direct


@njit(cache=True, nogil=True)
def byte_classes(page_starts, pages):
    """Class of each byte that is a character, COMPLEX for the others."""
    classes = np.full(256, COMPLEX, np.uint8)
    for point in range(128):
        classes[point] = kind_of(point, page_starts.ctypes.data, pages.ctypes.data)
    return classes
