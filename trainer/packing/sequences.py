"""Sequences of a run: epochs follow one another, and parts are made many sequences at a time."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from trainer.packing.parts import Numbers, Packing, Parts, Recent

_BLOCK_TOKENS = 1 << 20  # some arrays are made a block: what a batch alone would cost is shared
_BLOCK = 512


class Sequences:
    """The sequences of one packing, 0, 1, ... over all epochs. One thread at a time."""

    def __init__(self, packing: Packing, length: int) -> None:
        """``length``: T."""
        self.packing = packing
        self.length = length
        self._block = max(1, min(_BLOCK, _BLOCK_TOKENS // length))
        self._blocks: Recent[Parts] = Recent()

    def parts(self, sequences: Numbers) -> Parts:
        """Return the parts of sequences (int64[n]), padding included."""
        cuts = np.flatnonzero((np.diff(sequences) != 1) | (sequences[1:] % self._block == 0)) + 1
        bounds = [0, *cuts.tolist(), len(sequences)]
        found = []
        for low, high in itertools.pairwise(bounds):
            number, first = divmod(int(sequences[low]), self._block)
            block = self._blocks.get_or((0, number), lambda n=number: self._made(n))
            found.append(block.of_range(first, first + high - low, low))
        return Parts.joined(found)

    def _made(self, number: int) -> Parts:
        """The parts of a block's sequences."""
        sequences = np.arange(number * self._block, (number + 1) * self._block)
        epochs, within = np.divmod(sequences, self.packing.sequences)
        found = []
        for epoch in np.unique(epochs).tolist():
            here = np.flatnonzero(epochs == epoch)
            parts = self.packing.parts(epoch, within[here])
            found.append(dataclasses.replace(parts, sequence=here[parts.sequence]))
        return Parts.joined(found).padded(self._block, self.length)
