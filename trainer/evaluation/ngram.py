"""An n-gram model over token ids: interpolated absolute discounting, exact, in NumPy.

With counts c over the training documents, h the m tokens before w (m = order - 1), and N(h) the number
of different tokens seen after h,

    p_m(w | h) = max(c(h w) - D_m, 0) / c(h) + D_m N(h) / c(h) p_(m-1)(w | h'),

h' being h without its first token; p_m = p_(m-1) after an unseen h, and p_(-1) is uniform over
the vocabulary. D_m = n1 / (n1 + 2 n2), of n1 n-grams seen once and n2 seen twice (Ney, Essen and
Kneser, 1994; in the form of Chen and Goodman, 1999, section 2.7). Documents are independent: before
one's first token stand marks that are nowhere else.

Memory: some 40 bytes a training token and order, so corpora of up to a hundred million tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """Counts with m tokens before: keys (context * base + token) in order, and totals by context."""

    contexts: Numbers  # keys of the contexts: (shorter context * base + last token), in order
    grams: Numbers
    counts: Numbers
    totals: Numbers
    kinds: Numbers  # different tokens after a context
    discount: float


class NGram:
    """A model of ``order`` n, trained when it is made."""

    def __init__(
        self, documents: Sequence[npt.NDArray[np.integer]], vocabulary: int, order: int = 5
    ) -> None:
        """Train on documents of token ids below ``vocabulary``; at least one token."""
        self.vocabulary, self.order = vocabulary, order
        self._base = vocabulary + 1  # one more: the mark before a document
        stream, inside = self._joined(documents)
        self._orders: list[_Order] = []
        context = np.zeros(len(stream), np.int64)  # the empty one
        keys = np.zeros(1, np.int64)
        for m in range(order):
            if m:
                # The context of m tokens: that of m - 1 tokens one place before, and the token there.
                wanted = np.empty_like(context)
                wanted[0] = 0
                wanted[1:] = context[:-1] * self._base + stream[:-1]
                keys, context = np.unique(wanted, return_inverse=True)
            grams, counts = np.unique(
                context[inside] * self._base + stream[inside], return_counts=True
            )
            of = grams // self._base
            totals = np.bincount(of, weights=counts, minlength=len(keys)).astype(np.int64)
            kinds = np.bincount(of, minlength=len(keys))
            once, twice = int((counts == 1).sum()), int((counts == 2).sum())
            discount = once / (once + 2 * twice) if once else 0.5
            self._orders.append(_Order(keys, grams, counts, totals, kinds, discount))

    def log_probs(self, document: npt.NDArray[np.integer]) -> Floats:
        """Return the natural logarithm of each token's probability after those before it: [n]."""
        stream, inside = self._joined([document])
        probability = np.full(len(stream), 1.0 / self.vocabulary)
        context = np.zeros(len(stream), np.int64)
        for m, of in enumerate(self._orders):
            if m:
                wanted = np.full(len(stream), -1)
                known = context[:-1] >= 0
                wanted[1:][known] = context[:-1][known] * self._base + stream[:-1][known]
                context = _found(of.contexts, wanted)
            total = np.where(context >= 0, of.totals[context], 0)
            seen = total > 0
            place = _found(of.grams, np.where(seen, context * self._base + stream, -1))
            count = np.where(place >= 0, of.counts[place], 0)
            rest = of.discount * of.kinds[context]
            mixed = np.maximum(count - of.discount, 0) + rest * probability
            probability = np.where(seen, mixed / np.maximum(total, 1), probability)
        return np.asarray(np.log(probability[inside]))

    def _joined(
        self, documents: Sequence[npt.NDArray[np.integer]]
    ) -> tuple[Numbers, npt.NDArray[np.bool_]]:
        """Documents one after the other, order - 1 marks before each; and which are tokens."""
        marks = np.full(self.order - 1, self.vocabulary, np.int64)
        parts = [part for document in documents for part in (marks, document)]
        stream = np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)
        return stream, stream != self.vocabulary


def _found(keys: Numbers, wanted: Numbers) -> Numbers:
    """The places of keys in an ascending array; -1 for those that are not in it."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)
