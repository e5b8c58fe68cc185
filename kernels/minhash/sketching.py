"""Compiled: sketches of sets of hashes, and hashes of their bands. `reference` is the definition.

Per n-gram one multiplication to mix and one of 128 bits, whose high half is the slot and whose low
half the value; no branch depends on data. Slots that stay empty, which takes fewer than about ten
n-grams a slot, cost one pass over the n-grams each, in vectors of 32-bit numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from kernels.minhash.reference import BASE as BASE_
from kernels.minhash.reference import EMPTY as EMPTY_
from kernels.minhash.reference import MIX_1 as MIX_1_
from kernels.minhash.reference import MIX_2 as MIX_2_
from kernels.minhash.reference import OWN as OWN_

Array = Any
Int = Any
Word = Any

BASE, MIX_1, MIX_2 = np.uint64(BASE_), np.uint64(MIX_1_), np.uint64(MIX_2_)
EMPTY, OWN, ONE = np.uint32(EMPTY_), np.uint32(OWN_), np.uint32(1)
U33 = np.uint64(33)


@intrinsic
def high_product(typingctx: Any, a: Any, b: Any) -> Any:
    """The high 64 bits of the product of two uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), codegen


@njit(nogil=True, inline="always")
def mix(x: Word) -> Word:
    """MurmurHash3's finaliser."""
    x = (x ^ (x >> U33)) * MIX_1
    x = (x ^ (x >> U33)) * MIX_2
    return x ^ (x >> U33)


@njit(nogil=True)
def sketch_set(
    hashes: Array, start: Int, stop: Int, numbers: Array, room: Array, out: Array, row: Int
) -> None:
    """Sketch hashes[start:stop] into out[row]; `room` is uint32 of at least stop - start."""
    slots = out.shape[1]
    count = np.uint64(slots)
    add, factor = numbers[0], numbers[1]
    for slot in range(slots):
        out[row, slot] = EMPTY
    for i in range(start, stop):
        y = (hashes[i] ^ add) * factor
        value = np.uint32((y * count) >> U33)
        slot = np.int64(high_product(y, count))
        here = out[row, slot]
        out[row, slot] = value if value < here else here
    if stop == start:
        return
    held = False
    for slot in range(slots):
        if out[row, slot] != EMPTY:
            continue
        if not held:
            for i in range(start, stop):
                room[i - start] = np.uint32(hashes[i])
            held = True
        own_add, own_factor = np.uint32(numbers[2 + 2 * slot]), np.uint32(numbers[3 + 2 * slot])
        least = EMPTY
        for i in range(stop - start):
            value = np.uint32(room[i] * own_factor + own_add)
            least = value if value < least else least
        out[row, slot] = OWN | (least >> ONE)


@njit(cache=True, nogil=True)
def sketch_rows(hashes: Array, offsets: Array, numbers: Array, room: Array, out: Array) -> None:
    """out[r] (uint32 [n, slots]) is the sketch of hashes[offsets[r]:offsets[r + 1]] (uint64).

    `offsets` int64 [n + 1], `numbers` uint64 [2 slots + 2] as in `reference.parameters`, `room` uint32
    [the most hashes of a row]. A row without hashes is `EMPTY` in all slots.
    """
    for row in range(out.shape[0]):
        sketch_set(hashes, offsets[row], offsets[row + 1], numbers, room, out, row)


@njit(cache=True, nogil=True)
def band_rows(signatures: Array, out: Array) -> None:
    """out uint64 [n, bands]: a hash of each band of signatures uint32 [n, bands * rows]."""
    bands = out.shape[1]
    rows = signatures.shape[1] // bands
    for row in range(out.shape[0]):
        for band in range(bands):
            h = np.uint64(band + 1)
            for slot in range(band * rows, (band + 1) * rows):
                h = mix(h * BASE + np.uint64(signatures[row, slot]))
            out[row, band] = h
