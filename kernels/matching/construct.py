"""Compiled: entries to tables. Called by `builder` only."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.matching import scan
from kernels.matching.scan import EMPTY_PAIR, LONG, U0

ENTRY_MASK = np.uint64((1 << 28) - 1)
CHILD_0 = np.uint64(1 << 28)
CHILD_1 = np.uint64(1 << 29)
NEXT_0 = np.uint64(1 << 30)
NEXT_1 = np.uint64(1 << 31)
BEFORE = np.uint64(1 << 32)
AFTER = np.uint64(1 << 33)
VARIANT = np.uint64(1 << 34)
POOL_SHIFT = np.uint64(36)


@njit(cache=True, nogil=True)
def tokens_of_entries(data, offsets, numbers, pages, collapse, seed):
    """Token arrays of all entries: (keys, begins, ends, gaps, first token of each entry)."""
    n = offsets.shape[0] - 1
    longest = 0
    for e in range(n):
        longest = max(longest, offsets[e + 1] - offsets[e])
    room = 2 * longest + 4
    keys = np.empty(room, np.uint64)
    begins = np.empty(room, np.int64)
    ends = np.empty(room, np.int64)
    gaps = np.empty(room, np.int64)
    firsts = np.zeros(n + 1, np.int64)
    for e in range(n):
        firsts[e + 1] = (
            firsts[e]
            + 1
            + scan.tokenise(
                data,
                offsets[e],
                offsets[e + 1],
                numbers,
                pages,
                collapse,
                seed,
                keys,
                begins,
                ends,
                gaps,
            )
        )
    total = firsts[n]
    all_keys = np.empty(total + room, np.uint64)
    all_begins = np.empty(total + room, np.int64)
    all_ends = np.empty(total + room, np.int64)
    all_gaps = np.empty(total + room, np.int64)
    for e in range(n):
        at = firsts[e]
        scan.tokenise(
            data,
            offsets[e],
            offsets[e + 1],
            numbers,
            pages,
            collapse,
            seed,
            all_keys[at:],
            all_begins[at:],
            all_ends[at:],
            all_gaps[at:],
        )
    return all_keys[:total], all_begins[:total], all_ends[:total], all_gaps[:total], firsts


@njit(cache=True, nogil=True)
def intern_tokens(data, keys, begins, ends, firsts, cap):
    """(ordinal of each token, first position of each ordinal); None-like empty on a collision."""
    table = np.full(cap, -1, np.int64)
    ordinals = np.full(keys.shape[0], -1, np.int64)
    distinct = np.empty(keys.shape[0], np.int64)
    count = 0
    for e in range(firsts.shape[0] - 1):
        for t in range(firsts[e], firsts[e + 1] - 1):
            key = keys[t]
            at = np.int64(scan.mix(key) & np.uint64(cap - 1))
            while table[at] >= 0 and keys[distinct[table[at]]] != key:
                at = (at + 1) & (cap - 1)
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
    return ordinals, distinct[:count], True


@njit(cache=True, nogil=True)
def intern_nodes(keys, gaps, ordinals, firsts, n_tokens, cap):
    """The trie: (parent, token, join) of each node below the first level, last node of each entry.

    Nodes 0 .. n_tokens - 1 are the tokens themselves as first tokens.
    """
    table = np.full(cap, -1, np.int64)
    parents = np.empty(cap // 2 + 1, np.int64)
    tokens = np.empty(cap // 2 + 1, np.int64)
    joins = np.empty(cap // 2 + 1, np.uint64)
    n = firsts.shape[0] - 1
    last = np.full(n, -1, np.int64)
    count = 0
    for e in range(n):
        start = firsts[e]
        stop = firsts[e + 1] - 1
        # Spaces before the first other token and after the last are the entry's edges, not tokens.
        while start < stop and keys[start] == scan.SPACE_KEY:
            start += 1
        if start == stop:
            continue
        node = ordinals[start]
        for t in range(start + 1, stop):
            join = scan.join_of(keys, gaps, t)
            token = ordinals[t]
            key = scan.pair_key(node, token, join)
            at = np.int64(scan.mix(key) & np.uint64(cap - 1))
            while table[at] >= 0:
                k = table[at]
                if parents[k] == node and tokens[k] == token and joins[k] == join:
                    break
                at = (at + 1) & (cap - 1)
            if table[at] < 0:
                table[at] = count
                parents[count] = node
                tokens[count] = token
                joins[count] = join
                count += 1
            node = n_tokens + table[at]
        last[e] = node
    return parents[:count], tokens[:count], joins[:count], last


@njit(cache=True, nogil=True)
def place_tokens(data, keys, begins, ends, distinct, cap):
    """First-level table [cap, 2], pool of long tokens, slot of each ordinal."""
    slots = np.zeros((cap, 2), np.uint64)
    where = np.empty(distinct.shape[0], np.int64)
    size = 8
    for k in range(distinct.shape[0]):
        t = distinct[k]
        if keys[t] & LONG:
            size += (4 + ends[t] - begins[t] + 7) // 8 * 8
    pool = np.zeros(size, np.uint8)
    ref = 8
    for k in range(distinct.shape[0]):
        t = distinct[k]
        at = np.int64(scan.mix(keys[t]) & np.uint64(cap - 1))
        while slots[at, 0] != U0:
            at = (at + 1) & (cap - 1)
        slots[at, 0] = keys[t]
        where[k] = at
        if keys[t] & LONG:
            length = ends[t] - begins[t]
            slots[at, 1] = np.uint64(ref // 8) << POOL_SHIFT
            for b in range(4):
                pool[ref + b] = (length >> (8 * b)) & 255
            for b in range(length):
                pool[ref + 4 + b] = data[begins[t] + b]
            ref += (4 + length + 7) // 8 * 8
    return slots, pool, where


@njit(cache=True, nogil=True)
def place_pairs(first, where, parents, tokens, joins, n_tokens, cap):
    """Table of the deeper nodes [cap, 2] and the node number of every node of the trie."""
    slots = np.zeros((cap, 2), np.uint64)
    slots[:, 0] = EMPTY_PAIR
    base = first.shape[0]
    numbers = np.empty(n_tokens + parents.shape[0], np.int64)
    numbers[:n_tokens] = where
    for k in range(parents.shape[0]):
        parent = numbers[parents[k]]
        token = where[tokens[k]]
        join = joins[k]
        key = scan.pair_key(parent, token, join)
        at = np.int64(scan.mix(key) & np.uint64(cap - 1))
        while slots[at, 0] != EMPTY_PAIR:
            at = (at + 1) & (cap - 1)
        slots[at, 0] = key
        numbers[n_tokens + k] = base + at
        child = CHILD_0 if join == U0 else CHILD_1
        if parent < base:
            first[parent, 1] |= child
        else:
            slots[parent - base, 1] |= child
        first[token, 1] |= NEXT_0 if join == U0 else NEXT_1
    return slots, numbers


@njit(cache=True, nogil=True)
def place_entries(first, pairs, numbers, last, before, after):
    """Write entry ids into the tables; (variants int64 [n, 4], ids never reported).

    A variant is (entry, spaces before, spaces after, next variant): entries that differ only in
    the spaces at their edges end at one node.
    """
    n = last.shape[0]
    base = first.shape[0]
    holder = np.full(base + pairs.shape[0], -1, np.int64)
    variants = np.empty((n, 4), np.int64)
    used = 0
    collapsed = np.zeros(n, np.bool_)
    for e in range(n):
        if last[e] < 0:
            collapsed[e] = True
            continue
        node = numbers[last[e]]
        variant = holder[node]
        while variant >= 0:
            if variants[variant, 1] == before[e] and variants[variant, 2] == after[e]:
                break
            variant = variants[variant, 3]
        if variant >= 0:
            collapsed[e] = True
            continue
        variants[used, 0] = e
        variants[used, 1] = before[e]
        variants[used, 2] = after[e]
        variants[used, 3] = holder[node]
        holder[node] = used
        used += 1
    kept = np.empty((used, 4), np.int64)
    n_kept = 0
    for node in range(holder.shape[0]):
        head = holder[node]
        if head < 0:
            continue
        plain = variants[head, 3] < 0 and variants[head, 1] <= 1 and variants[head, 2] <= 1
        if plain:
            word = np.uint64(variants[head, 0] + 1)
            if variants[head, 1]:
                word |= BEFORE
            if variants[head, 2]:
                word |= AFTER
        else:
            word = np.uint64(n_kept + 1) | VARIANT
            while head >= 0:
                kept[n_kept, :3] = variants[head, :3]
                head = variants[head, 3]
                kept[n_kept, 3] = n_kept + 1 if head >= 0 else -1
                n_kept += 1
        if node < base:
            first[node, 1] |= word
        else:
            pairs[node - base, 1] |= word
    return kept[:n_kept].copy(), collapsed


@njit(cache=True, nogil=True)
def edges_of_entries(data, keys, begins, gaps, firsts, numbers, pages, always):
    """Spaces that must stand (before, after) each entry in mode official."""
    n = firsts.shape[0] - 1
    before = np.zeros(n, np.int64)
    after = np.zeros(n, np.int64)
    for e in range(n):
        start = firsts[e]
        stop = firsts[e + 1] - 1
        while start < stop and keys[start] == scan.SPACE_KEY:
            start += 1
        if start == stop:
            continue
        before[e] = gaps[start] - 1
        after[e] = gaps[stop] - 1
        point, _ = scan.decode(data, begins[start], begins[start] + 4)
        single = pages[np.int64(numbers[point >> 8]) * 256 + (point & 255)] == scan.SINGLE
        if always or before[e] or not single:
            before[e] += 1
        point, _ = scan.decode(data, begins[stop - 1], begins[stop - 1] + 4)
        single = pages[np.int64(numbers[point >> 8]) * 256 + (point & 255)] == scan.SINGLE
        if always or after[e] or not single:
            after[e] += 1
    return before, after
