"""Compiled: entries to a trie of tokens."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching.memory import Array, Int, Word
from kernels.matching.scan import (
    AFTER,
    BEFORE,
    LONG,
    RUN,
    SINGLE,
    SPACE,
    SPACE_KEY,
    VARIANT,
    decode,
    home,
    key_of,
    kind_of,
    mix,
    pair_key,
)


@njit(nogil=True)
def tokens_of_entry(
    raw: Int, begin: Int, end: Int, page_starts: Int, pages: Int, collapse: bool, seed: Word,
    keys: Array, begins: Array, ends: Array, gaps: Array,
) -> Int:  # fmt: skip
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
def tokens_of_entries(
    data: Array, offsets: Array, page_starts: Array, pages: Array, collapse: bool, seed: Word
) -> tuple[Array, Array, Array, Array, Array]:
    """Token arrays of all entries and the first position of each: entry e has the tokens
    firsts[e] .. firsts[e + 1] - 2; the last place holds the gap behind it."""
    n = offsets.shape[0] - 1
    longest = 0
    for e in range(n):
        longest = max(longest, offsets[e + 1] - offsets[e])
    keys = np.empty(longest + 1, np.uint64)
    begins = np.empty(longest + 1, np.int32)
    ends = np.empty(longest + 1, np.int32)
    gaps = np.empty(longest + 1, np.int32)
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
    begins = np.empty(room, np.int32)
    ends = np.empty(room, np.int32)
    gaps = np.empty(room, np.int32)
    for e in range(n):
        at, low, high = firsts[e], offsets[e], offsets[e + 1]
        tokens_of_entry(
            raw, low, high, starts, classes, collapse, seed, keys[at:], begins[at:], ends[at:],
            gaps[at:],
        )  # fmt: skip
    return keys, begins, ends, gaps, firsts


@njit(nogil=True)
def core(keys: Array, firsts: Array, e: Int) -> tuple[Int, Int]:
    """(first, behind last) token of an entry without the space tokens before it."""
    start, stop = firsts[e], firsts[e + 1] - 1
    while start < stop and keys[start] == SPACE_KEY:
        start += 1
    return start, stop


@njit(cache=True, nogil=True)
def intern_tokens(
    data: Array, keys: Array, begins: Array, ends: Array, firsts: Array, spread: Int
) -> tuple[Array, Array, bool]:
    """(ordinal of each token, position of each ordinal, whether no two tokens share a key)."""
    table = np.full(spread, -1, np.int32)
    ordinals = np.full(keys.shape[0], -1, np.int32)
    distinct = np.empty(keys.shape[0], np.int32)
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
def intern_nodes(
    keys: Array, gaps: Array, ordinals: Array, firsts: Array, n_tokens: Int, spread: Int
) -> tuple[Array, Array, Array, Array]:
    """The trie: (parent, token, join) of each node below the first level, last node of each entry.

    Nodes 0 .. n_tokens - 1 are the tokens themselves as first tokens; parents precede children.
    """
    table = np.full(spread, -1, np.int32)
    parents = np.empty(keys.shape[0], np.int32)
    tokens = np.empty(keys.shape[0], np.int32)
    joins = np.empty(keys.shape[0], np.uint8)
    last = np.full(firsts.shape[0] - 1, -1, np.int32)
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


@njit(nogil=True)
def edge_is_single(raw: Int, begin: Int, page_starts: Int, pages: Int) -> bool:
    """Whether the token that begins there is a character of its own, so an edge without a space."""
    point, _ = decode(raw, begin, begin + 4)
    return kind_of(point, page_starts, pages) == SINGLE


@njit(cache=True, nogil=True)
def edges_of_entries(
    data: Array, keys: Array, begins: Array, gaps: Array, firsts: Array, page_starts: Array,
    pages: Array, always: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """Spaces that must stand (before, after) each entry in mode official (spec 4.3)."""
    n = firsts.shape[0] - 1
    before = np.zeros(n, np.int32)
    after = np.zeros(n, np.int32)
    raw = data.ctypes.data
    starts, classes = page_starts.ctypes.data, pages.ctypes.data
    for e in range(n):
        start, stop = core(keys, firsts, e)
        if start == stop:
            continue
        before[e], after[e] = gaps[start], gaps[stop]
        if always or before[e] or not edge_is_single(raw, begins[start], starts, classes):
            before[e] += 1
        if always or after[e] or not edge_is_single(raw, begins[stop - 1], starts, classes):
            after[e] += 1
    return before, after


@njit(cache=True, nogil=True)
def gather_entries(
    last: Array, before: Array, after: Array, n_nodes: Int
) -> tuple[Array, Array, Array]:
    """Entries by node: (first variant of each node, variants, whether each entry collapsed).

    A variant is (entry, spaces before, spaces after, next variant or -1): entries that differ only
    in the spaces at their edges end at one node. Of equal entries the first is kept.
    """
    n = last.shape[0]
    heads = np.full(n_nodes, -1, np.int32)
    variants = np.empty((n, 4), np.int32)
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
    return heads, variants[:used], collapsed


@njit(cache=True, nogil=True)
def entry_words(heads: Array, variants: Array) -> tuple[Array, Array]:
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
