"""Sequences of a run, and the arrays of a training batch made of them.

Epochs follow one another. What does not depend on tokens is made for a block of sequences at a time, so
that a batch costs little more than copying its tokens.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.packing import fill
from trainer.packing.parts import PADDING, Numbers, Packing, Parts, Recent
from trainer.packing.tokens import RowGroups, Tokens

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
        self._first: list[int] = np.searchsorted(parts.sequence, np.arange(sequences + 1)).tolist()
        groups, self._which = np.unique(parts.group, return_inverse=True)
        self._groups: list[int] = groups.tolist()
        # Where the tokens of each row group lie in memory, and they themselves, to keep them there.
        self._begins = np.zeros(len(groups), np.int64)
        self._tokens: dict[int, Tokens] = {}
        self._addresses: Numbers | None = None  # of all parts, once all is read
        self._lock = threading.Lock()

    def arrays(self, first: int, end: int, groups: RowGroups, document_mask: bool) -> Arrays:
        """Return the arrays of the sequences from ``first`` to ``end``.

        Label t is the token after input t, -100 where that one is padding, and with
        ``document_mask`` where it begins a document. Padding is token 0 and segment -1.
        """
        here = slice(self._first[first], self._first[end])
        addresses, width = self._addresses_of(here, groups), groups.alphabet.bytes
        size = (end - first, self._length)
        inputs, labels, positions = (np.empty(size, np.int64) for _ in range(3))
        segments = np.empty(size, np.int32)
        arrays = inputs, labels, positions, segments
        fill(addresses, self.parts.length[here], width, document_mask, arrays)
        return Arrays(*arrays)

    def _addresses_of(self, here: slice, groups: RowGroups) -> Numbers:
        """Where the tokens of parts lie, 0 for padding."""
        if self._addresses is not None:
            return self._addresses[here]
        if whole := len(self._tokens) == len(self._groups):
            here, asked = slice(None), here
        which = self._which[here]
        begins = self._begins_of(which, groups)[which]
        addresses = np.where(
            begins == 0, 0, begins + self.parts.offset[here] * groups.alphabet.bytes
        )
        if whole:
            self._addresses, addresses = addresses, addresses[asked]
        return addresses

    def _begins_of(self, which: Numbers, groups: RowGroups) -> Numbers:
        """Addresses of the tokens of row groups, 0 for padding; what was read stays as long as the
        block."""
        if len(self._tokens) < len(self._groups):
            wanted = {self._groups[i] for i in np.unique(which).tolist()}
            missing = wanted.difference(self._tokens)
            found = groups.documents(missing - {PADDING})
            with self._lock:
                for number in missing.difference(self._tokens):
                    padding = number == PADDING
                    tokens = np.zeros(0, np.uint16) if padding else found[number].tokens
                    # First where it lies: others look whether the tokens are there.
                    place = self._groups.index(number)
                    self._begins[place] = 0 if padding else tokens.ctypes.data
                    self._tokens[number] = tokens
        return self._begins


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
        plain = last - first == len(sequences) - 1 and last // self.size == first // self.size
        if not plain or sequences.tolist() != list(range(first, last + 1)):
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
