"""Where the first right item stands among all items, by cosine: what every score here rests on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_BLOCK = 16 << 20  # similarities held at once


def first_right(queries: Features, items: Features, pairs: tuple[Ints, Ints]) -> Ints:
    """Return the rank (0 is best) of each query's best right item: int64[Q].

    ``queries`` [Q, D] and ``items`` [M, D] have unit rows. ``pairs`` = (query, item) numbers of what
    is right, in ascending order of query, at least one for each query. Equal similarities stand in
    the order of their items, as in a stable sort, so a model that tells nothing apart gets chance.
    Raises ValueError if a query has no right item.
    """
    query, item = pairs
    if len(np.unique(query)) != len(queries) or np.any(np.diff(query) < 0):
        raise ValueError("every query needs a right item, and pairs must ascend by query")
    rank = np.empty(len(queries), np.int64)
    step = max(1, _BLOCK // max(1, len(items)))
    order = np.arange(len(items))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ items.T
        inside = slice(*np.searchsorted(query, [start, start + len(scores)]))
        right = np.zeros(scores.shape, bool)
        right[query[inside] - start, item[inside]] = True
        best = np.where(right, scores, -np.inf).max(1, keepdims=True)
        equal = scores == best
        first = (equal & right).argmax(1)[:, None]
        above = (scores > best) | (equal & (order < first))
        rank[start : start + len(scores)] = above.sum(1)
    return rank


def nearest(queries: Features, items: Features, k: int) -> Ints:
    """Return the `k` nearest items of each query, best first: int64[Q, min(k, M)]."""
    return np.argsort(-(queries @ items.T), axis=1, kind="stable")[:, :k]
