"""Loads numba and the compiled functions; everything else imports this module inside functions."""

from __future__ import annotations

import numpy as np

from kernels.matching import cache

with cache.kept():
    from kernels.matching import search, tables, trie

match_texts = search.match_texts
byte_classes = tables.byte_classes


def _buckets(count: int) -> int:
    """Buckets over which `count` keys are spread: two keys for each of their four slots."""
    return max(4, count // 2)


def _spread(count: int) -> int:
    """Places over which `count` keys are spread: two for each."""
    return max(16, 2 * count)


def build_tables(
    data: np.ndarray,
    offsets: np.ndarray,
    page_starts: np.ndarray,
    pages: np.ndarray,
    collapse: bool,
    always: bool,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, int], list[int]] | None:
    """(sections, counts for the header, ids never reported), or None if two tokens share a key."""
    keys, begins, ends, gaps, firsts = trie.tokens_of_entries(
        data, offsets, page_starts, pages, collapse, np.uint64(seed)
    )
    ordinals, distinct, apart = trie.intern_tokens(
        data, keys, begins, ends, firsts, _spread(len(keys))
    )
    if not apart:
        return None
    n_tokens = len(distinct)
    parents, tokens, joins, last = trie.intern_nodes(
        keys, gaps, ordinals, firsts, n_tokens, _spread(len(keys))
    )
    del ordinals  # arrays of all tokens are large: each goes when it has served
    before = after = np.zeros(len(last), np.int32)
    if not collapse:
        before, after = trie.edges_of_entries(
            data, keys, begins, gaps, firsts, page_starts, pages, always
        )
    heads, variants, collapsed = trie.gather_entries(last, before, after, n_tokens + len(parents))
    words, variants = trie.entry_words(heads, variants)
    del last, before, after, gaps, firsts
    first_spread = _buckets(n_tokens)
    first, pool, where = tables.place_tokens(
        data, keys, begins, ends, distinct, words, first_spread
    )
    del keys, begins, ends, distinct
    state, kept = tables.find_tails(parents, heads, n_tokens)
    pair_spread = _buckets(kept)
    pairs, tails = tables.place_pairs(
        first, where, parents, tokens, joins, state, words, n_tokens, pair_spread, kept
    )
    del where, parents, tokens, joins, state, words, heads
    bits = min(23, max(12, (8 * kept - 1).bit_length()))
    sections = {
        "first": first,
        "pairs": pairs,
        "pool": pool,
        "tails": tails,
        "variants": variants,
        "bloom": tables.filter_of(pairs, len(first) // 2, bits),
        "direct": tables.direct_of(first),
    }
    chains = np.flatnonzero(variants[:, 3] < 0)
    chain = int(np.diff(chains, prepend=-1).max()) if len(chains) else 1
    counts = {"first_spread": first_spread, "pair_spread": pair_spread, "chain": chain}
    return sections, counts, [int(i) for i in np.flatnonzero(collapsed)]
