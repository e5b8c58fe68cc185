"""The matcher of one language, over a mapped automaton file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kernels.matching import layout, workspace
from kernels.matching import state as st
from schemas.errors import InputError

MAX_TEXT = 1 << 26
"""Bytes of the longest text that is matched."""
_NO_IDS = np.empty(0, np.uint32)


class Automaton:
    """Finds which entries occur in texts. Read-only, shared freely between threads.

    The file stays mapped: processes on one machine share its memory. Pickles as its path.
    """

    def __init__(self, path: Path, header: dict[str, Any], sections: dict[str, np.ndarray]):
        self.path = path
        self.size: int = header["entries"]
        self.mode: str = header["mode"]
        self.fingerprint: str = header["fingerprint"]
        self.unicode_version: str = header["unicode"]
        self.seed: int = header["seed"]
        self._sections = sections
        # If entries have runs of spaces, each space may be a token, and each wrapped character
        # stands between two more.
        runs = self.mode == "official" and int(sections["direct"][0x20]) >= 0
        first = sections["first"]
        values = {
            st.FIRST: first.ctypes.data,
            st.FIRST_SPREAD: header["first_spread"],
            st.FIRST_SIZE: len(first) // 2,
            st.POOL: sections["pool"].ctypes.data,
            st.POOL_SIZE: len(sections["pool"]),
            st.PAIRS: sections["pairs"].ctypes.data,
            st.PAIR_SPREAD: header["pair_spread"],
            st.BLOOM: sections["bloom"].ctypes.data,
            st.BLOOM_SHIFT: 64 - (64 * len(sections["bloom"]) - 1).bit_length(),
            st.TAILS: sections["tails"].ctypes.data,
            st.VARIANTS: sections["variants"].ctypes.data,
            st.CHAIN: header["chain"],
            st.CLASSES: sections["classes"].ctypes.data,
            st.PAGE_STARTS: sections["page_starts"].ctypes.data,
            st.PAGES: sections["pages"].ctypes.data,
            st.DIRECT: sections["direct"].ctypes.data,
            st.COLLAPSE: self.mode == "repaired",
            st.MULTIPLE: runs,
            st.SEED: self.seed,
            st.ENTRIES: max(1, self.size),
        }
        self._fields = np.array(list(values), np.int64)
        self._values = np.array(list(values.values()), np.int64)
        self._tokens_per_byte = 3 if runs else 1

    @classmethod
    def open(cls, path: str | Path) -> Automaton:
        """Map an automaton file after checking it; see `layout.read` for the errors."""
        return cls(Path(path), *layout.read(Path(path)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Automaton.open, (str(self.path),)

    def match(self, texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """Entries that occur in each raw text (normalised here, by the automaton's mode).

        `texts`: string, large_string, binary or large_binary; a null matches nothing; bytes that
        are no UTF-8 count as characters that no entry has. Returns (offsets int64 [n + 1],
        ids uint32): the ids of text i are ids[offsets[i]:offsets[i + 1]], ascending, unique.
        Raises InputError for another type, an array whose offsets leave its buffer, or a text of
        more than `MAX_TEXT` bytes.
        """
        chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
        found = [self._match(*text_buffers(chunk)) for chunk in chunks]
        counts = [np.zeros(1, np.int64), *(counts for counts, _ in found)]
        ids = found[0][1] if len(found) == 1 else np.concatenate([_NO_IDS, *(i for _, i in found)])
        return np.cumsum(np.concatenate(counts)), ids

    def _match(
        self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(number of ids of each text, ids) of the texts data[starts[i]:ends[i]]."""
        from kernels.matching import compiled

        longest = int((ends - starts).max(initial=0))
        space = workspace.take(longest, self._tokens_per_byte)
        state = space.state
        state[self._fields] = self._values
        counts = np.zeros(len(starts), np.int64)
        ids = np.empty(len(starts) + int((ends - starts).sum()) // 2, np.uint32)
        state[st.DATA], state[st.STARTS] = data.ctypes.data, starts.ctypes.data
        state[st.ENDS], state[st.COUNTS] = ends.ctypes.data, counts.ctypes.data
        state[st.ROWS], state[st.ROW], state[st.USED] = len(starts), 0, 0
        while True:
            state[st.IDS], state[st.IDS_ROOM], state[st.IDS_NEED] = ids.ctypes.data, len(ids), 0
            compiled.match_texts(state)
            if state[st.HITS_NEED]:
                space.make_hits(int(state[st.HITS_NEED]))
            elif state[st.IDS_NEED]:
                larger = np.empty(2 * int(state[st.IDS_NEED]), np.uint32)
                larger[: state[st.USED]] = ids[: state[st.USED]]
                ids = larger
            else:
                break
        ids = ids[: state[st.USED]].copy()
        workspace.give_back(space)
        return counts, ids


def text_buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bytes uint8, starts int64 [n], ends int64 [n]) of a text array, without copying the text.

    Nulls get start == end. Raises InputError as `Automaton.match` says.
    """
    kind = texts.type
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    if not wide and not pa.types.is_string(kind) and not pa.types.is_binary(kind):
        raise InputError(
            f"texts of type {kind}: string, large_string, binary or large_binary is needed; "
            "cast the column"
        )
    if len(texts) == 0:
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64)
    _, offset_buffer, data_buffer = texts.buffers()
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.empty(0, np.uint8)
    stored = np.frombuffer(offset_buffer, np.int64 if wide else np.int32)
    offsets = stored[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    starts, ends = offsets[:-1], offsets[1:]
    sizes = ends - starts
    if offsets[0] < 0 or offsets[-1] > len(data) or int(sizes.min()) < 0:
        raise InputError("a text array whose offsets leave its buffer; it was not written by Arrow")
    if texts.null_count:
        nulls = texts.is_null().to_numpy(zero_copy_only=False)
        ends = np.where(nulls, starts, ends)
        sizes = np.where(nulls, 0, sizes)
    if int(sizes.max()) > MAX_TEXT:
        raise InputError(
            f"text {int(sizes.argmax())} has {int(sizes.max())} bytes; the limit is {MAX_TEXT}: "
            "split or drop it"
        )
    return data, starts, ends
