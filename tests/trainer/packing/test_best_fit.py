"""Best-fit decreasing against a packer that places one piece after the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.packing.best_fit import pack


def one_by_one(lengths: list[int], room: int) -> list[int]:
    """Room left in each sequence, by the definition of best-fit decreasing."""
    left: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, free in enumerate(left) if free >= length]
        if not fitting:
            fitting = [len(left)]
            left.append(room)
        left[min(fitting, key=lambda i: left[i])] -= length
    return sorted(left)


@given(st.data(), st.integers(1, 40))
def test_the_packing_is_that_of_best_fit_decreasing(data: st.DataObject, room: int) -> None:
    lengths = data.draw(st.lists(st.integers(1, room), min_size=1, max_size=80))
    sequence = pack(np.array(lengths), room)
    used = np.bincount(sequence, weights=lengths).astype(int)
    assert sorted((room - used).tolist()) == one_by_one(lengths, room)
    assert used.min() > 0
