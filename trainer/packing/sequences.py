"""Sequences of a run, and the arrays of a training batch made of them.

Epochs follow one another. What does not depend on tokens is made for a block of sequences at a time, so
that a batch costs little more than copying its tokens.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.packing.parts import PADDING, Numbers, Packing, Parts, Recent
from trainer.packing.tokens import RowGroups, Tokens

IGNORED = -100
"""Label that no loss counts."""

_BLOCK_TOKENS = 1 << 22
_BLOCK = 2048


@dataclass(frozen=True)
class Arrays:
    """``input_ids``, ``labels``, ``position_ids``: int64 [n, T]; ``segments``: int32 [n, T]."""

    input_ids: Numbers
    labels: Numbers
    position_ids: Numbers
    segments: npt.NDArray[np.int32]

    @classmethod
    def joined(cls, of: list[tuple[Numbers, Arrays]], length: int) -> Arrays:
        """Put sequences of several blocks and sources together: (their places, their arrays)."""
        if len(of) == 1:
            return of[0][1]
        places = [rows for rows, _ in of]
        size = sum(map(len, places))
        found = []
        for name in ("input_ids", "labels", "position_ids", "segments"):
            whole = np.empty((size, length), np.int32 if name == "segments" else np.int64)
            for rows, arrays in of:
                whole[rows] = getattr(arrays, name)
            found.append(whole)
        return cls(*found)


class Block:
    """Consecutive sequences of T tokens, by parts."""

    def __init__(self, parts: Parts, sequences: int, length: int) -> None:
        """``parts``: of the sequences from 0 on, padding included: T + 1 tokens each."""
        self.parts = parts
        self._length = length
        self._line = np.arange(length)
        wide = length + 1
        self._first: list[int] = np.searchsorted(parts.sequence, np.arange(sequences + 1)).tolist()
        begins = np.cumsum(parts.length) - parts.length
        column = begins - parts.sequence * wide
        padding = parts.group == PADDING
        inner = (column > 0) & ~padding
        # Labels that begin a document: places in the sequences' T labels one after the other.
        self._crossing = (parts.sequence * length + column - 1)[inner]
        self._padded: list[int] = parts.sequence[padding].tolist()
        self._padding: list[int] = column[padding].tolist()
        # The last part of each sequence without the token that is only a label.
        self._sizes = np.minimum(parts.length, length - column)
        ordinal = np.arange(len(begins)) - np.array(self._first)[parts.sequence]
        self._ordinal = np.where(padding, -1, ordinal).astype(np.int32)
        self._groups: list[int] = parts.group.tolist()
        self._begins: list[int] = parts.offset.tolist()
        self._ends: list[int] = (parts.offset + parts.length).tolist()
        self._tokens: dict[int, Tokens] = {}
        self._distinct = len(set(self._groups))

    def arrays(self, first: int, end: int, groups: RowGroups, document_mask: bool) -> Arrays:
        """Return the arrays of the sequences from ``first`` to ``end``.

        Label t is the token after input t, `IGNORED` where that one is padding, and with
        ``document_mask`` where it begins a document. Padding is token 0 and segment -1.
        """
        length, low, high = self._length, self._first[first], self._first[end]
        here = self._groups[low:high]
        tokens = self._tokens_of(here, groups)
        places = zip(here, self._begins[low:high], self._ends[low:high], strict=True)
        ids = np.concatenate([tokens[g][a:b] for g, a, b in places]).reshape(-1, length + 1)
        inputs, labels = ids[:, :-1].astype(np.int64), ids[:, 1:].astype(np.int64)
        if document_mask:
            sizes = self._sizes[low:high]
            edges = np.searchsorted(self._crossing, (first * length, end * length)).tolist()
            labels.reshape(-1)[self._crossing[slice(*edges)] - first * length] = IGNORED
            positions = np.concatenate([self._line[:size] for size in sizes.tolist()])
            positions = positions.reshape(-1, length)
            segments = np.repeat(self._ordinal[low:high], sizes).reshape(-1, length)
        else:
            positions = np.broadcast_to(self._line, inputs.shape).copy()
            segments = np.zeros(inputs.shape, np.int32)
        for i in range(bisect_left(self._padded, first), bisect_left(self._padded, end)):
            sequence, column = self._padded[i] - first, self._padding[i]
            labels[sequence, max(0, column - 1) :] = IGNORED
            segments[sequence, column:] = -1
        return Arrays(inputs, labels, positions, segments)

    def _tokens_of(self, numbers: list[int], groups: RowGroups) -> dict[int, Tokens]:
        """The tokens of row groups and more, by number; what was read stays as long as the block."""
        if len(self._tokens) == self._distinct:
            return self._tokens
        if missing := set(numbers).difference(self._tokens):
            more = {n: one.tokens for n, one in groups.documents(missing - {PADDING}).items()}
            if PADDING in missing:
                more[PADDING] = np.zeros(self._length + 1, groups.alphabet.dtype)
            self._tokens = self._tokens | more
        return self._tokens


class Sequences:
    """The sequences of one packing, 0, 1, ... over all epochs. One thread at a time."""

    def __init__(self, packing: Packing, length: int) -> None:
        """``length``: T."""
        self.packing = packing
        self.length = length
        self.size = max(1, min(_BLOCK, _BLOCK_TOKENS // length, packing.sequences // 2))
        self._blocks: Recent[Block] = Recent()

    def of(self, sequences: Numbers) -> list[tuple[Numbers, Block, int, int]]:
        """Return where sequences (int64[n]) are: which of them, their block, first and end in it."""
        first, last = int(sequences[0]), int(sequences[-1])
        bounds = [0, len(sequences)]
        if last // self.size != first // self.size or (np.diff(sequences) != 1).any():
            breaks = (np.diff(sequences) != 1) | (sequences[1:] % self.size == 0)
            bounds[1:1] = (np.flatnonzero(breaks) + 1).tolist()
        found = []
        for low, high in itertools.pairwise(bounds):
            number, first = divmod(int(sequences[low]), self.size)
            block = self._blocks.get_or((0, number), functools.partial(self._made, number))
            found.append((np.arange(low, high), block, first, first + high - low))
        return found

    def _made(self, number: int) -> Block:
        sequences = np.arange(number * self.size, (number + 1) * self.size)
        epochs, within = np.divmod(sequences, self.packing.sequences)
        found = []
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = np.flatnonzero(epochs == epoch)
            parts = self.packing.parts(epoch, within[here])
            found.append(dataclasses.replace(parts, sequence=here[parts.sequence]))
        return Block(Parts.joined(found).padded(self.size, self.length), self.size, self.length)
