"""Which tokens a sequence has: parts of documents, in order. Both packings answer in these terms."""

from __future__ import annotations

import dataclasses
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Numbers = npt.NDArray[np.int64]

PADDING = -1
"""In the place of a row group: the part is padding."""

WINDOWS_HELD = 3
"""Windows whose order is kept: loader threads cross from one to the next in turns."""


@dataclass(frozen=True)
class Parts:
    """Parts of documents, int64[p] each, sequence after sequence and in the order of their tokens.

    ``sequence``: index among the sequences asked for; ``group``: row group, numbered over all shards;
    ``row``: of the row group; tokens ``start`` to ``start + length`` of the document, which are those
    from ``offset`` on of the row group. A sequence of T tokens has T + 1 here if its last one has a
    label: the token that follows.
    """

    sequence: Numbers
    group: Numbers
    row: Numbers
    start: Numbers
    offset: Numbers
    length: Numbers

    @classmethod
    def joined(cls, parts: list[Parts]) -> Parts:
        """Put parts together; sequences go in order, and parts of one stay in theirs."""
        if len(parts) == 1:
            return parts[0]
        columns = [
            np.concatenate([getattr(p, field.name) for p in parts])
            for field in dataclasses.fields(cls)
        ]
        order = np.argsort(columns[0], kind="stable")
        return cls(*(column[order] for column in columns))

    def padded(self, sequences: int, length: int) -> Parts:
        """Return the parts of so many sequences with one more where a sequence has less than ``length``
        + 1 tokens: its padding."""
        missing = (
            length
            + 1
            - np.bincount(self.sequence, weights=self.length, minlength=sequences).astype(np.int64)
        )
        short = np.flatnonzero(missing)
        none = np.zeros(len(short), np.int64)
        pads = Parts(short, np.full(len(short), PADDING), none, none, none, missing[short])
        return Parts.joined([self, pads])

    def without_padding(self) -> Parts:
        """Return the parts that are of documents."""
        here = self.group != PADDING
        return Parts(*(column[here] for column in vars(self).values()))

    def of_range(self, first: int, end: int) -> Parts:
        """Return the parts of the sequences from ``first`` to ``end``, numbered from 0 on."""
        low, high = np.searchsorted(self.sequence, (first, end)).tolist()
        columns = {name: column[low:high] for name, column in vars(self).items()}
        return Parts(**{**columns, "sequence": columns["sequence"] - first})


class Packing(Protocol):
    """Sequences of an epoch: sequence k is a pure function of (digest, seed, settings, epoch, k)."""

    sequences: int
    """Of an epoch; all epochs have equally many."""

    padding: int
    """Places of an epoch's sequences that hold no token."""

    unused: int
    """Tokens of the split that an epoch leaves out."""

    def parts(self, epoch: int, sequences: Numbers) -> Parts:
        """Return the parts of sequences (int64[n], 0 to ``sequences`` - 1)."""
        ...

    def following(self, epoch: int, sequence: int) -> tuple[int, int] | None:
        """Return epoch and window that come next, if a sequence is far enough in its own."""
        ...

    def row_groups(self, epoch: int, window: int) -> Numbers:
        """Return the row groups of a window."""
        ...


class Recent(OrderedDict[tuple[int, int], T]):
    """The last few things that were made, by two numbers such as epoch and window."""

    def get_or(self, key: tuple[int, int], make: Callable[[], T]) -> T:
        """Return what was made for a key; makes it if it is not kept."""
        if key in self:
            self.move_to_end(key)
        else:
            self[key] = make()
            while len(self) > WINDOWS_HELD:
                self.popitem(last=False)
        return self[key]


def following(epoch: int, at: int, starts: Numbers) -> tuple[int, int] | None:
    """Return epoch and window that come after the one of ``at``, if an eighth of that one is done: before,
    loader threads may still begin on the one before. ``starts``: as in `windows_of`."""
    window = int(np.searchsorted(starts, at, side="right")) - 1
    low, high = starts[window : window + 2].tolist()
    if 8 * (at - low) < high - low:
        return None
    return (epoch, window + 1) if window + 2 < len(starts) else (epoch + 1, 0)


def ranges(first: Numbers, last: Numbers) -> tuple[Numbers, Numbers]:
    """Return the numbers of the ranges [first, last) one after the other, and the range of each."""
    counts = last - first
    which = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - before[which] + first[which], which


def windows_of(low: Numbers, high: Numbers, starts: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Yield (window, indices of the ranges [low, high) that reach into it), windows in order.

    ``starts``: int64[w + 1], where each window begins, on the same line as the ranges.
    """
    first = np.searchsorted(starts, low, side="right") - 1
    last = np.searchsorted(starts, high, side="left")
    if len(first) and (only := int(first.min())) == last.max() - 1:
        yield only, np.arange(len(first))
        return
    window, which = ranges(first, last)
    order = np.argsort(window, kind="stable")
    window, which = window[order], which[order]
    cuts = [0, *(np.flatnonzero(np.diff(window)) + 1).tolist(), len(window)]
    for a, b in itertools.pairwise(cuts):
        if b > a:
            yield int(window[a]), which[a:b]
