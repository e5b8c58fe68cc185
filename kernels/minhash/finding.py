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
    most_words,
    powers,
    tables,
)

BITS_PER_KEY = 16
"""Of the table that is read first: of 16 hashes that are not in the index one gets past it."""
_HITS = 1 << 12


class Lookup(NamedTuple):
    """Sorted keys and two tables that find them; see `overlap`."""

    keys: Words
    first: Offsets
    shift: np.uint64
    bits: Words
    narrow: np.uint64


def lookup(keys: Words) -> Lookup:
    """Tables for keys in ascending order, repeated ones too; about 30 bytes a key in all."""
    pages = max(1, (2 * len(keys)).bit_length())
    first = np.searchsorted(keys, np.arange(1 << pages, dtype=np.uint64) << np.uint64(64 - pages))
    width = max(6, (BITS_PER_KEY * len(keys)).bit_length())
    narrow = np.uint64(64 - width)
    places = np.unique(keys >> narrow)
    bits = np.zeros((1 << width) // 64, np.uint64)
    np.bitwise_or.at(bits, (places >> np.uint64(6)).astype(np.int64), _bit(places))
    ends = np.append(first, len(keys)).astype(np.int64)
    return Lookup(keys, ends, np.uint64(64 - pages), bits, narrow)


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
    room, base = most_words(starts, ends), powers(2 * words)
    compiled.places_of_grams(
        data, starts, ends, *tables(), 2 * words, base, room, hashes, places, offsets, counts
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
        room, base = most_words(starts, ends), powers(2 * max(words, short_words))
        hits = np.empty((_HITS, 5), np.int64)
        done = 0
        while done < len(chunk):
            begun = done
            done, used = compiled.find_overlaps(
                data, starts, ends, *tables(), base, room, 2 * words, tuple(grams),
                2 * short_words, tuple(shorts), short_counts, short_hashes, tuple(tinies), done, hits,
            )  # fmt: skip
            part = hits[:used].copy()
            part[:, 0] += row
            found.append(part)
            if done == begun:
                hits = np.empty((2 * len(hits), 5), np.int64)
        row += len(chunk)
    return np.concatenate(found)
