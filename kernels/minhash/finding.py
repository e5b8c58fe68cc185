"""N-grams with their places, and which of those in an index occur in texts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kernels.minhash.arrays import (
    Offsets,
    Words,
    buffers,
    check_words,
    chunks,
    powers,
    tables,
    work_space,
)

BITS_PER_KEY = 16
"""Of the table that is read first: of 16 hashes that are not in the index one gets past it."""
_HITS = 1 << 12
_KINDS = (np.uint64, np.uint8, np.int32, np.int32)


class Lookup:
    """Sorted keys (repeated ones too) and two tables that find them; about 30 bytes a key in all.

    `fields` uint64 [6] is what compiled code reads (see `overlap`).
    """

    def __init__(self, keys: Words) -> None:
        self.keys = np.ascontiguousarray(keys, np.uint64)
        pages = max(1, (2 * len(keys)).bit_length())
        heads = np.arange(1 << pages, dtype=np.uint64) << np.uint64(64 - pages)
        self._first = np.append(np.searchsorted(keys, heads), len(keys)).astype(np.int64)
        width = max(6, (BITS_PER_KEY * len(keys)).bit_length())
        places = np.unique(keys >> np.uint64(64 - width))
        self._bits = np.zeros((1 << width) // 64, np.uint64)
        np.bitwise_or.at(self._bits, (places >> np.uint64(6)).astype(np.int64), _bit(places))
        addresses = [a.ctypes.data for a in (self.keys, self._first, self._bits)]
        self.fields = np.array([*addresses, 64 - pages, 64 - width, len(keys)], np.uint64)


def _bit(places: Words) -> Words:
    return np.uint64(1) << (places & np.uint64(63))


class Grams(NamedTuple):
    """N-grams of texts: those of text i are hashes[offsets[i]:offsets[i + 1]]; places int64 [., 2] in
    bytes of the text; counts[i] is the number of words of a text whose one hash is of all its words
    because they make no n-gram, else 0."""

    hashes: Words
    places: npt.NDArray[np.int64]
    offsets: Offsets
    counts: Offsets


def gram_places(texts: pa.Array, words: int) -> Grams:
    """As `arrays.shingles`, of one array, with places."""
    from kernels.minhash import compiled

    check_words(words)
    data, starts, ends = buffers(texts)
    most = int(((ends - starts) // 2 + 1).sum())
    hashes, places = np.empty(most, np.uint64), np.empty((most, 2), np.int64)
    offsets, counts = np.zeros(len(texts) + 1, np.int64), np.zeros(len(texts), np.int64)
    space, base = work_space(starts, ends, *_KINDS), powers(2 * words)
    compiled.places_of_grams(
        data, starts, ends, tables(), 2 * words, base, *space, hashes, places, offsets, counts
    )
    used = offsets[-1]
    return Grams(hashes[:used].copy(), places[:used].copy(), offsets, counts)


def overlaps(
    texts: pa.Array | pa.ChunkedArray,
    words: int,
    grams: Lookup,
    short_words: int,
    shorts: Lookup,
    short_counts: Offsets,
    short_hashes: Words,
    tinies: Lookup,
) -> npt.NDArray[np.int64]:
    """Hits int64 [., 5] in texts: row, kind, entry, begin and end in bytes of the text; by row.

    Kind 0: an n-gram of `words` words whose hash is grams.keys[entry]. Kind 1: a run of words whose
    first `short_words` make the hash shorts.keys[entry]; short_counts[entry] are all its words and
    short_hashes[entry] their hash. Kind 2: a whole text of less than `short_words` words with the hash
    tinies.keys[entry].
    """
    from kernels.minhash import compiled

    check_words(words)
    found = [np.empty((0, 5), np.int64)]
    row = 0
    for chunk in chunks(texts):
        data, starts, ends = buffers(chunk)
        space, base = work_space(starts, ends, *_KINDS), powers(2 * max(words, short_words))
        hits = np.empty((_HITS, 5), np.int64)
        done = 0
        while done < len(chunk):
            begun = done
            done, used = compiled.find_overlaps(
                data, starts, ends, tables(), base, *space, 2 * words, grams.fields,
                2 * short_words, shorts.fields, short_counts, short_hashes, tinies.fields, done, hits,
            )  # fmt: skip
            part = hits[:used].copy()
            part[:, 0] += row
            found.append(part)
            if done == begun:
                hits = np.empty((2 * len(hits), 5), np.int64)
        row += len(chunk)
    return np.concatenate(found)
