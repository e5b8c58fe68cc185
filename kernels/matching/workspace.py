"""Memory that a call of the compiled matcher works in, kept for the next call."""

from __future__ import annotations

import threading

import numpy as np

from kernels.matching import state as st

_STRIDES = {
    st.CANDIDATES: np.uint64,
    st.HOMES: np.int32,
    st.ATS: np.int32,
    st.BEGINS: np.int32,
    st.TAIL_REFS: np.int32,
    st.TAIL_ATS: np.int32,
    st.TAIL_BEGINS: np.int32,
}
_TOKENS = {
    st.KEYS: np.uint64,
    st.OFFSETS: np.int32,
    st.LENGTHS: np.int32,
    st.PLACES: np.int32,
    st.JOINS: np.uint8,
    st.GAPS: np.int32,
    st.OWNERS: np.int32,
    st.WORDS: np.uint64,
    st.STEPS: np.int32,
    st.NEXTS: np.uint8,
    st.WAITING: np.int32,
}


class Workspace:
    """Arrays by field of the state; `state` holds their addresses."""

    def __init__(self, longest: int, tokens_per_byte: int):
        self.bytes = max(st.BLOCK, longest)
        self.tokens_per_byte = tokens_per_byte
        self.state = np.zeros(st.FIELDS, np.int64)
        self._arrays: dict[int, np.ndarray] = {}
        # Vector reads go up to 64 bytes behind the text.
        self.keep(st.RAW, np.zeros(self.bytes + 128, np.uint8))
        self.keep(st.BITS, np.empty(self.bytes // 64 + 4, np.uint64))
        tokens = tokens_per_byte * (self.bytes + 2 * st.TEXTS) + 8
        for field, kind in _TOKENS.items():
            self.keep(field, np.empty(tokens, kind))
        for field, kind in _STRIDES.items():
            self.keep(field, np.empty(st.STRIDE, kind))
        self.keep(st.TALLY, np.empty(st.DIGITS * st.BUCKETS, np.uint64))
        self.make_hits(8 * st.STRIDE)

    def keep(self, field: int, array: np.ndarray) -> np.ndarray:
        """Hold an array whose address goes into the state."""
        self._arrays[field] = array
        self.state[field] = array.ctypes.data
        return array

    def make_hits(self, room: int) -> None:
        """Room for hits, twice: they are sorted from one array into the other."""
        self.keep(st.HITS, np.empty(room, np.uint64))
        self.keep(st.SPARE, np.empty(room, np.uint64))
        self.state[st.HITS_ROOM] = room
        self.state[st.HITS_NEED] = 0


_free: list[Workspace] = []
_lock = threading.Lock()


def take(longest: int, tokens_per_byte: int) -> Workspace:
    """A workspace for texts of up to `longest` bytes."""
    with _lock:
        for i, space in enumerate(_free):
            if space.bytes >= longest and space.tokens_per_byte >= tokens_per_byte:
                return _free.pop(i)
    return Workspace(longest, tokens_per_byte)


def give_back(space: Workspace) -> None:
    """Keep a workspace for the next call, unless it is large or there are many."""
    if space.bytes == st.BLOCK and space.state[st.HITS_ROOM] <= 64 * st.BLOCK:
        with _lock:
            if len(_free) < 4:
                _free.append(space)
