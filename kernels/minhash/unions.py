"""Compiled: connected components by union-find."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any


@njit(cache=True, nogil=True)
def join(first: Array, second: Array, parents: Array) -> None:
    """Join nodes first[e] and second[e] (int64 [edges]) of every edge.

    `parents` int64 [nodes] begins as arange(nodes) or as an earlier call left it, and ends with the
    smallest node of each node's component: one result for any order of the edges. Time grows as
    (nodes + edges) log(nodes) at worst; paths are halved.
    """
    for e in range(first.shape[0]):
        a, b = first[e], second[e]
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        while parents[b] != b:
            parents[b] = parents[parents[b]]
            b = parents[b]
        if a < b:
            parents[b] = a
        else:
            parents[a] = b
    for node in range(parents.shape[0]):
        # A parent is never larger, so it has its final value already.
        parents[node] = np.int64(parents[parents[node]])
