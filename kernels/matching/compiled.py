"""Loads numba and the compiled functions; everything else imports this module inside functions."""

from __future__ import annotations

import numpy as np

from kernels.matching import construct, search

match_texts = search.match_texts


def _room(count: int) -> int:
    """A power of two at least twice `count`."""
    return max(16, 1 << (2 * count - 1).bit_length()) if count else 16


def build_tables(
    data: np.ndarray,
    offsets: np.ndarray,
    numbers: np.ndarray,
    pages: np.ndarray,
    collapse: bool,
    always: bool,
    seed: np.uint64,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """(first, pairs, pool, variants, collapsed) or None if two tokens share a key under `seed`."""
    keys, begins, ends, gaps, firsts = construct.tokens_of_entries(
        data, offsets, numbers, pages, collapse, seed
    )
    ordinals, distinct, apart = construct.intern_tokens(
        data, keys, begins, ends, firsts, _room(len(keys))
    )
    if not apart:
        return None
    parents, tokens, joins, last = construct.intern_nodes(
        keys, gaps, ordinals, firsts, len(distinct), _room(len(keys))
    )
    first, pool, where = construct.place_tokens(
        data, keys, begins, ends, distinct, _room(len(distinct))
    )
    pairs, nodes = construct.place_pairs(
        first, where, parents, tokens, joins, len(distinct), _room(len(parents))
    )
    n = len(offsets) - 1
    before, after = np.zeros(n, np.int64), np.zeros(n, np.int64)
    if not collapse:
        before, after = construct.edges_of_entries(
            data, keys, begins, gaps, firsts, numbers, pages, always
        )
    variants, collapsed = construct.place_entries(first, pairs, nodes, last, before, after)
    return first, pairs, pool, variants, collapsed
