"""Sequences as the arrays of a training batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.packing.parts import PADDING, Numbers, Parts

IGNORED = -100
"""Label that no loss counts."""


@dataclass(frozen=True)
class Arrays:
    """``input_ids``, ``labels``, ``position_ids``: int64 [n, T]; ``segments``: int32 [n, T]."""

    input_ids: Numbers
    labels: Numbers
    position_ids: Numbers
    segments: npt.NDArray[np.int32]

    @classmethod
    def none(cls, length: int) -> Arrays:
        """Return those of no sequence."""
        ids = np.empty((0, length), np.int64)
        return cls(ids, ids, ids, np.empty((0, length), np.int32))

    @classmethod
    def joined(cls, of: list[tuple[Numbers, Arrays]]) -> Arrays:
        """Put sequences of several sources into one batch: (rows of the batch, their arrays)."""
        if len(of) == 1:
            return of[0][1]
        size = sum(len(rows) for rows, _ in of)
        found = []
        for name in ("input_ids", "labels", "position_ids", "segments"):
            first = getattr(of[0][1], name)
            whole = np.empty((size, first.shape[1]), first.dtype)
            for rows, arrays in of:
                whole[rows] = getattr(arrays, name)
            found.append(whole)
        return cls(*found)


def arrays(tokens: npt.NDArray[Any], parts: Parts, length: int, document_mask: bool) -> Arrays:
    """Return the arrays of sequences of ``length`` T tokens.

    ``parts``: those of `Parts.padded`, T + 1 tokens a sequence; ``tokens``: theirs, one after the other.
    Label t is the token after input t. It is `IGNORED` where that one is padding, and with
    ``document_mask`` where it begins a document. Padding is a document of token 0 and segment -1.
    """
    wide = length + 1
    ids = tokens.reshape(-1, wide)
    inputs, labels = ids[:, :-1].astype(np.int64), ids[:, 1:].astype(np.int64)
    begins = np.cumsum(parts.length) - parts.length
    row, column = begins // wide, begins % wide
    padding = parts.group == PADDING
    if document_mask:
        inner = column > 0
        labels[row[inner], column[inner] - 1] = IGNORED
    for r, c in zip(row[padding].tolist(), column[padding].tolist(), strict=True):
        labels[r, max(0, c - 1) :] = IGNORED
    # What follows is T wide: the last part of each sequence lacks the token that is only a label.
    sizes = parts.length.copy()
    sizes[np.append(row[1:] != row[:-1], True)] -= 1
    if document_mask:
        first = np.flatnonzero(column == 0)
        ordinal = np.arange(len(row)) - first[row]
        line = np.arange(wide)
        positions = np.concatenate([line[:size] for size in sizes.tolist()]).reshape(-1, length)
    else:
        ordinal = np.zeros(len(row), np.int64)
        positions = np.broadcast_to(np.arange(length), inputs.shape).copy()
    segments = np.repeat(np.where(padding, -1, ordinal).astype(np.int32), sizes)
    return Arrays(inputs, labels, positions, segments.reshape(-1, length))
