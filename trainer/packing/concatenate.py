"""Concatenate and split: the documents of an epoch, shuffled, as one stream that is cut every T tokens.

The row groups are permuted, and the documents of every ``window`` consecutive ones are permuted
together. Sequence k has the stream's tokens k T to (k + 1) T, and its last label is the token after: so
a cut loses no label, and each token is an input once and a label once an epoch. The first token is no
label; what is left after the last whole sequence, at most T tokens, waits for another epoch, whose
order is another.

Where a window begins follows from sums over row groups, so seeking reads no more than the lengths of
one window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.errors import UsageError
from trainer.order import permutation
from trainer.packing.lengths import Lengths, Numbers
from trainer.packing.parts import Parts, Recent, following, windows_of


@dataclass(frozen=True)
class _Epoch:
    """Row groups in order, and the tokens before each window: int64[w + 1]."""

    groups: Numbers
    starts: Numbers


@dataclass(frozen=True)
class _Window:
    """Documents in order, and the tokens before each in the window: int64[d + 1]."""

    group: Numbers
    row: Numbers
    offset: Numbers
    starts: Numbers


class Concatenated:
    """See the module; a `Packing`. One thread at a time."""

    def __init__(
        self, lengths: Lengths, code: int, digest: str, seed: int, length: int, window: int
    ) -> None:
        """``code``: number of the split; ``digest``: of the dataset; ``length``: T.

        UsageError if the split has not the tokens of one sequence.
        """
        self.lengths = lengths
        self.code = code
        self.length = length
        self.window = window
        self._name = digest
        self._seed = seed
        self._groups = np.flatnonzero(lengths.tokens[:, code])
        total = int(lengths.tokens[:, code].sum())
        self.sequences = (total - 1) // length
        if not self.sequences:
            raise UsageError(
                f"data.sequence_length={length}: one sequence takes {length + 1} tokens (the last is "
                f"only a label), and split {lengths.splits[code]} has {total}: give "
                f"data.sequence_length={max(1, total - 1)} at most, or more data"
            )
        self.padding = 0
        self.unused = total - self.sequences * length
        self._epochs: Recent[_Epoch] = Recent()
        self._windows: Recent[_Window] = Recent()

    def parts(self, epoch: int, sequences: Numbers) -> Parts:
        """Return the parts of sequences: T + 1 tokens each."""
        low = sequences * self.length
        high = low + self.length + 1
        found = []
        for window, which in windows_of(low, high, self._epoch(epoch).starts):
            begin = int(self._epoch(epoch).starts[window])
            docs = self._window(epoch, window)
            end = int(docs.starts[-1])
            found.append(
                _cut(docs, which, np.clip(low[which] - begin, 0, end), high[which] - begin)
            )
        return Parts.joined(found)

    def following(self, epoch: int, sequence: int) -> tuple[int, int] | None:
        """Return epoch and window that come next, if a sequence is far enough in its own."""
        return following(epoch, sequence * self.length, self._epoch(epoch).starts)

    def row_groups(self, epoch: int, window: int) -> Numbers:
        """Return the row groups of a window."""
        return self._epoch(epoch).groups[window * self.window :][: self.window]

    def _epoch(self, epoch: int) -> _Epoch:
        return self._epochs.get_or((epoch, 0), lambda: self._order(epoch))

    def _order(self, epoch: int) -> _Epoch:
        order = permutation(self._name, self._seed, epoch, "token groups", 0, len(self._groups))
        groups = self._groups[order]
        ends = np.cumsum(self.lengths.tokens[groups, self.code])
        last = np.arange(self.window, len(groups) + self.window, self.window)
        return _Epoch(groups, np.concatenate([[0], ends[np.minimum(last, len(groups)) - 1]]))

    def _window(self, epoch: int, window: int) -> _Window:
        return self._windows.get_or((epoch, window), lambda: self._documents(epoch, window))

    def _documents(self, epoch: int, window: int) -> _Window:
        groups = self.row_groups(epoch, window)
        docs = self.lengths.of_groups(groups, self.code)
        order = permutation(
            self._name, self._seed, epoch, "token documents", window, len(docs.length)
        )
        ends = np.cumsum(docs.length[order])
        return _Window(
            docs.group[order], docs.row[order], docs.offset[order], np.concatenate([[0], ends])
        )


def _cut(docs: _Window, which: Numbers, low: Numbers, high: Numbers) -> Parts:
    """The parts of tokens [low, high) of a window, as far as it goes, for each of some sequences."""
    high = np.minimum(high, docs.starts[-1])
    first = np.searchsorted(docs.starts, low, side="right") - 1
    last = np.searchsorted(docs.starts, high, side="left")
    counts = last - first
    at = np.repeat(np.arange(len(which)), counts)
    doc = np.arange(len(at)) - (np.cumsum(counts) - counts)[at] + first[at]
    begin = np.maximum(docs.starts[doc], low[at])
    end = np.minimum(docs.starts[doc + 1], high[at])
    start = begin - docs.starts[doc]
    return Parts(
        which[at], docs.group[doc], docs.row[doc], start, docs.offset[doc] + start, end - begin
    )
