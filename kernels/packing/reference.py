"""Slow and plain: what the compiled code writes, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IGNORED = -100
"""Label that no loss counts."""

Arrays = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]
]


def fill(parts: Sequence[Sequence[int] | int], length: int, masked: bool) -> Arrays:
    """Return inputs, labels, positions and segments of parts: their tokens, or of padding how much."""
    rows: list[list[tuple[int, int, int, int]]] = [[]]
    ordinal = 0
    for part in parts:
        if len(rows[-1]) == length + 1:
            rows.append([])
            ordinal = 0
        row, padding = rows[-1], isinstance(part, int)
        for place, token in enumerate([0] * part if isinstance(part, int) else part):
            crossing = masked and place == 0 and len(row) > 0
            label = IGNORED if padding or crossing else token
            position = place if masked else len(row)
            segment = ordinal if masked else 0
            row.append((token, label, position, -1 if padding else segment))
        ordinal += 1
    table = np.array(rows, np.int64).reshape(len(rows), length + 1, 4)
    return (
        table[:, :-1, 0],
        table[:, 1:, 1],
        table[:, :-1, 2],
        table[:, :-1, 3].astype(np.int32),
    )
