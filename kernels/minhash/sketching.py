"""Compiled: sketches of sets of hashes, and hashes of their bands. `reference` is the definition.

Per n-gram two multiplications, in vectors, and one read and write of a slot; no branch depends on
data. Slots that stay empty, which takes fewer than some ten n-grams a slot, cost a pass over the
n-grams for every `LANES` of them. Arrays are indexed by unsigned numbers or addresses throughout:
numba's test for negative indices keeps loops from being made into vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.matching.memory import get32, get64, prefetch, put32
from kernels.minhash.reference import BASE as BASE_
from kernels.minhash.reference import EMPTY as EMPTY_
from kernels.minhash.reference import MIX_1 as MIX_1_
from kernels.minhash.reference import MIX_2 as MIX_2_
from kernels.minhash.reference import OWN as OWN_

Array = Any
Int = Any
Word = Any

BASE, MIX_1, MIX_2 = np.uint64(BASE_), np.uint64(MIX_1_), np.uint64(MIX_2_)
OWN, ONE = np.uint32(OWN_), np.uint32(1)
U1, U32, U33 = np.uint64(1), np.uint64(32), np.uint64(33)
LOW_ = EMPTY_
LOW = np.uint64(LOW_)
HIGH = ~LOW
BLOCK = 1024
"""Hashes that are multiplied together, in vectors, before they are thrown one by one."""
LANES = 16
"""Slots whose own hash functions are computed at once: a vector of 512 bits, or parts of it."""


@intrinsic
def least_of(typingctx: Any, items: Any, count: Any, factors: Any, adds: Any, out: Any) -> Any:
    """out[l] = the least items[i] * factors[l] + adds[l] modulo 2^32 over i < count, for `LANES` lanes l
    at once; all but the count are addresses of uint32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lane = ir.IntType(32)
        lanes = ir.VectorType(lane, LANES)
        items, count, *others = args
        items = builder.inttoptr(items, lane.as_pointer())
        factors, adds, out = (builder.inttoptr(other, lanes.as_pointer()) for other in others)
        factor, add = builder.load(factors, align=4), builder.load(adds, align=4)
        least = cgutils.alloca_once_value(builder, ir.Constant(lanes, [EMPTY_] * LANES))
        spread = ir.Constant(lanes, [0] * LANES)
        with cgutils.for_range(builder, count) as loop:
            item = builder.load(builder.gep(items, [loop.index]))
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), item, lane(0))
            value = builder.add(builder.mul(builder.shuffle_vector(one, one, spread), factor), add)
            here = builder.load(least)
            smaller = builder.icmp_unsigned("<", value, here)
            builder.store(builder.select(smaller, value, here), least)
        builder.store(builder.load(least), out, align=4)
        return context.get_dummy_value()

    word = types.int64
    return types.none(word, word, word, word, word), codegen


@njit(nogil=True, inline="always")
def mix(x: Word) -> Word:
    """MurmurHash3's finaliser."""
    x = (x ^ (x >> U33)) * MIX_1
    x = (x ^ (x >> U33)) * MIX_2
    return x ^ (x >> U33)


@njit(nogil=True)
def sketch_set(
    hashes: Int,
    count: Int,
    slots: Int,
    numbers: Int,
    thrown: Array,
    rest: Array,
    room: Int,
    out: Int,
) -> None:
    """Sketch `count` hashes into `slots` numbers at the address `out`.

    `thrown` uint64 [BLOCK], `rest` uint32 [4, at least slots + LANES] and `room`, the address of `count`
    uint32, are work space. `numbers` is the address of `reference.parameters`.
    """
    for slot in range(slots):
        put32(out, slot, EMPTY_)
    if count == 0:
        return
    add, factor, spread = get64(numbers, 0), get64(numbers, 1), np.uint64(np.uint32(slots))
    for first in range(0, count, BLOCK):
        block = min(BLOCK, count - first)
        for i in range(np.uint64(block)):
            y = (get64(hashes, first + np.int64(i)) ^ add) * factor
            thrown[i] = ((y >> U32) * spread & HIGH) | ((y & LOW) >> U1)
        for i in range(np.uint64(block)):
            # Nothing else asks for the next block while this one is thrown; a quarter faster from memory.
            prefetch(hashes + 8 * (first + BLOCK + np.int64(i)))
            y = thrown[i]
            at, value = np.int64(y >> U32), np.int64(y & LOW)
            here = get32(out, at) & LOW_
            put32(out, at, value if value < here else here)
    empty: Int = 0
    for slot in range(slots):
        empty += np.int64(get32(out, slot) == -1)
    if empty == 0:
        return
    empty = 0
    for slot in range(np.uint64(slots)):
        rest[0, empty] = slot
        rest[1, empty] = get64(numbers, 3 + 2 * np.int64(slot))
        rest[2, empty] = get64(numbers, 2 + 2 * np.int64(slot))
        empty += np.int64(get32(out, np.int64(slot)) == -1)
    for i in range(count):
        put32(room, i, np.int64(get64(hashes, i)))
    base, row = rest.ctypes.data, 4 * rest.shape[1]
    for first in range(0, empty, LANES):
        at = base + 4 * first
        least_of(room, count, at + row, at + 2 * row, at + 3 * row)
    for i in range(empty):
        put32(out, np.int64(rest[0, i]), np.int64(OWN | (rest[3, i] >> ONE)))


@njit(cache=True, nogil=True)
def sketch_rows(hashes: Array, offsets: Array, numbers: Array, room: Array, out: Array) -> None:
    """out[r] (uint32 [n, slots]) is the sketch of hashes[offsets[r]:offsets[r + 1]] (uint64).

    `offsets` int64 [n + 1] within the hashes, `numbers` uint64 [2 slots + 2] as in
    `reference.parameters`, `room` uint32 [the most hashes of a row]. A row without hashes is `EMPTY` in
    all slots.
    """
    slots = out.shape[1]
    thrown, rest = np.empty(BLOCK, np.uint64), np.empty((4, slots + LANES), np.uint32)
    for row in range(out.shape[0]):
        sketch_set(
            hashes.ctypes.data + 8 * offsets[row],
            offsets[row + 1] - offsets[row],
            slots,
            numbers.ctypes.data,
            thrown,
            rest,
            room.ctypes.data,
            out.ctypes.data + 4 * slots * row,
        )


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
