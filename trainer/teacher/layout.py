"""Which rows a dataset of logits has: a function of the lengths of its documents, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.packing.lengths import Lengths
from trainer.packing.parts import Numbers, ranges


@dataclass(frozen=True)
class Layout:
    """Rows in order, int64[r] each: row group (over all shards) and row of the document, and the tokens
    ``start`` to ``start`` + ``length`` of it."""

    group: Numbers
    row: Numbers
    start: Numbers
    length: Numbers

    @classmethod
    def of(cls, lengths: Lengths, code: int, context: int) -> Layout:
        """Cut the documents of a split, in their order, every ``context`` tokens."""
        docs = lengths.of_groups(np.flatnonzero(lengths.tokens[:, code]), code)
        chunk, doc = ranges(np.zeros_like(docs.length), -(-docs.length // context))
        start = chunk * context
        length = np.minimum(docs.length[doc] - start, context)
        return cls(docs.group[doc], docs.row[doc], start, length)

    def units(self, tokens: int) -> list[tuple[int, int]]:
        """Return [first, end) of consecutive rows of at most so many tokens, or of one row."""
        ends = np.cumsum(self.length)
        found, first = [], 0
        while first < len(ends):
            before = int(ends[first - 1]) if first else 0
            end = max(first + 1, int(np.searchsorted(ends, before + tokens, side="right")))
            found.append((first, end))
            first = end
        return found


def first_tokens(lengths: Lengths, code: int) -> Numbers:
    """Return the tokens of a split before each document, for every row of the dataset: int64[n]."""
    own = np.where(lengths.codes == code, lengths.lengths, 0).astype(np.int64)
    return np.cumsum(own) - own
