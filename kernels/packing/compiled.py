"""Compiled: see `kernels.packing`. Everything else imports this module inside functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kernels.minhash import cache

with cache.kept(Path(__file__).parent):
    from numba import njit

    from kernels.matching.memory import get16, getu32
    from kernels.packing.reference import IGNORED as IGNORED_

    Array = Any
    Int = Any
    IGNORED = IGNORED_

    @njit(nogil=True)
    def copy16(address: Int, out: Array) -> None:
        """Write the tokens of 2 bytes at an address."""
        for i in range(out.shape[0]):  # an index from 0 on is never negative: this becomes SIMD
            out[i] = get16(address, i)

    @njit(nogil=True)
    def copy32(address: Int, out: Array) -> None:
        """The same of 4 bytes."""
        for i in range(out.shape[0]):
            out[i] = getu32(address, i)

    @njit(nogil=True)
    def count_from(start: Int, out: Array) -> None:
        """Write start, start + 1, ..."""
        for i in range(out.shape[0]):
            out[i] = start + i

    @njit(cache=True, nogil=True)
    def fill_arrays(
        addresses: Array,
        lengths: Array,
        width: Int,
        masked: bool,
        inputs: Array,
        labels: Array,
        positions: Array,
        segments: Array,
    ) -> None:
        """See `kernels.packing.fill`."""
        length = inputs.shape[1]
        row, column, ordinal = 0, 0, 0
        for part in range(addresses.shape[0]):
            address, size = addresses[part], lengths[part]
            end = min(column + size, length)  # of its inputs
            first = 1 if column == 0 else 0  # of its labels: the first token of a sequence is none
            if address == 0:
                inputs[row, column:end] = 0
                labels[row, max(0, column - 1) :] = IGNORED
            elif width == 2:
                copy16(address, inputs[row, column:end])
                copy16(address + 2 * first, labels[row, column + first - 1 : column + size - 1])
            else:
                copy32(address, inputs[row, column:end])
                copy32(address + 4 * first, labels[row, column + first - 1 : column + size - 1])
            if masked and column > 0:
                labels[row, column - 1] = IGNORED
            count_from(0 if masked else column, positions[row, column:end])
            segments[row, column:end] = -1 if address == 0 else (ordinal if masked else 0)
            column += size
            ordinal += 1
            if column > length:
                row, column, ordinal = row + 1, 0, 0
