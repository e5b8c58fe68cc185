"""Compiled filling of training batches against its plain reference; what it refuses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from kernels.packing import fill, reference


def drawn(seed: int, length: int, largest: int) -> list[list[int] | int]:
    """Parts of some sequences of length + 1 tokens; some end with padding, one is all padding."""
    random = np.random.default_rng(seed)
    parts: list[list[int] | int] = []
    for _ in range(6):
        left = length + 1
        while left:
            size = int(min(left, random.integers(1, length + 2)))
            left -= size
            if not left and random.random() < 0.4:
                parts.append(size)
            else:
                parts.append(random.integers(0, largest, size).tolist())
    return [*parts, length + 1]


def filled(
    parts: list[list[int] | int], length: int, width: int, masked: bool
) -> tuple[npt.NDArray[np.int64], ...]:
    sizes = [part if isinstance(part, int) else len(part) for part in parts]
    # A token before: places in one array, as of a row group.
    known = [t for part in parts if not isinstance(part, int) for t in part]
    tokens = np.array([7, *known], f"<u{width}")
    addresses, at = [], 1
    for part in parts:
        addresses.append(0 if isinstance(part, int) else tokens.ctypes.data + width * at)
        at += 0 if isinstance(part, int) else len(part)
    shape = sum(sizes) // (length + 1), length
    arrays = tuple(np.full(shape, -77, np.int64) for _ in range(3))
    segments = np.full(shape, -77, np.int32)
    fill(np.array(addresses), np.array(sizes), width, masked, (*arrays, segments))  # type: ignore[arg-type]
    return (*arrays, segments)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 17, 100])
def test_as_the_reference(length: int, width: int, masked: bool) -> None:
    for seed in range(8):
        parts = drawn(seed, length, 1 << 8 * width)
        wanted = reference.fill(parts, length, masked)
        for found, other in zip(filled(parts, length, width, masked), wanted, strict=True):
            np.testing.assert_array_equal(found, other)


def test_a_worked_example() -> None:
    """Two documents and padding in a sequence of 6 tokens, and one document that fills the next."""
    parts: list[list[int] | int] = [[5, 6, 7], [8, 9], 2, [1, 2, 3, 4, 5, 6, 7]]
    inputs, labels, positions, segments = filled(parts, 6, 2, True)
    assert inputs.tolist() == [[5, 6, 7, 8, 9, 0], [1, 2, 3, 4, 5, 6]]
    assert labels.tolist() == [[6, 7, -100, 9, -100, -100], [2, 3, 4, 5, 6, 7]]
    assert positions.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]
    assert segments.tolist() == [[0, 0, 0, 1, 1, -1], [0] * 6]
    _, labels, positions, segments = filled(parts, 6, 2, False)
    assert labels.tolist()[0] == [6, 7, 8, 9, -100, -100]
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert segments.tolist()[0] == [0, 0, 0, 0, 0, -1]


def test_parts_that_are_no_whole_sequences_are_refused() -> None:
    arrays = tuple(np.empty((2, 4), np.int64) for _ in range(3))
    with pytest.raises(ValueError, match="9 tokens are not 2 sequences of 5"):
        fill(np.zeros(1, np.int64), np.array([9]), 2, True, (*arrays, np.empty((2, 4), np.int32)))  # type: ignore[arg-type]
    spread = tuple(np.empty((2, 8), np.int64)[:, ::2] for _ in range(3))
    with pytest.raises(ValueError, match="are not"):
        fill(
            np.zeros(2, np.int64), np.array([5, 5]), 2, True, (*spread, np.empty((2, 4), np.int32))
        )  # type: ignore[arg-type]
