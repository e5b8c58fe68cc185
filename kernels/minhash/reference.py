"""Slow and plain: the same numbers as the compiled code, in Python integers.

All arithmetic is modulo 2^64. Hashing words: multiply and fold by eights of bytes. An n-gram is a
polynomial of its words' hashes, mixed. The sketch is the fast similarity sketch of Dahlgaard,
Knudsen and Thorup (FOCS 2017) with one round: each n-gram is thrown into one of k slots and the
smallest of a slot stays; a slot that got none takes the smallest n-gram under a hash function of its
own, marked so that it equals nothing of the first kind. Slot by slot, two sketches are equal with
the probability of the sets' Jaccard similarity, as in MinHash with k permutations.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernels.minhash.words import grams, words_of

MASK = (1 << 64) - 1
MULTIPLIER = 0x9E3779B97F4A7C15
BASE = 0xD6E8FEB86659FD93
MIX_1, MIX_2 = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
EMPTY = 0xFFFFFFFF
"""Slots of a text without words."""
OWN = 1 << 31
"""Set in slots that no n-gram was thrown into."""


def mix(x: int) -> int:
    """MurmurHash3's finaliser, a bijection of 64 bits."""
    x = (x ^ x >> 33) * MIX_1 & MASK
    x = (x ^ x >> 33) * MIX_2 & MASK
    return x ^ x >> 33


def word_hash(word: str) -> int:
    """64 bits of a normalised word."""
    raw = word.encode()
    h = 0
    for i in range(0, len(raw), 8):
        h = (h ^ int.from_bytes(raw[i : i + 8], "little")) * MULTIPLIER & MASK
        h ^= h >> 32
    return mix(h ^ len(raw))


def gram_hash(words: Sequence[str]) -> int:
    """64 bits of consecutive words."""
    h = 0
    for word in words:
        h = (h * BASE + word_hash(word)) & MASK
    return mix(h)


def shingles(text: str, n: int) -> list[int]:
    """Hashes of a text's n-grams, in order; of all its words if they make none; none without any."""
    words = words_of(text)
    found = grams(words, n)
    if words and not found:
        found = [(0, len(words))]
    return [gram_hash(words[a:b]) for a, b in found]


def parameters(slots: int, seed: int) -> list[int]:
    """Random numbers that a seed stands for: two for the throw, two for each slot."""
    drawn = [mix((seed * MULTIPLIER + i + 1) & MASK) for i in range(2 * slots + 2)]
    # An odd factor makes a multiplication a bijection.
    return [value | 1 if i % 2 else value for i, value in enumerate(drawn)]


def sketch(hashes: Sequence[int], slots: int, seed: int) -> list[int]:
    """`slots` numbers of 32 bits for a set of 64-bit hashes."""
    add, factor, *own = parameters(slots, seed)
    found = [EMPTY] * slots
    for x in hashes:
        thrown = (x ^ add) * factor & MASK
        slot, value = (thrown >> 32) * slots >> 32, (thrown & 0xFFFFFFFF) >> 1
        found[slot] = min(found[slot], value)
    for slot in range(slots if hashes else 0):
        if found[slot] == EMPTY:
            add, factor = own[2 * slot : 2 * slot + 2]
            least = min((x * factor + add) % (1 << 32) for x in hashes)
            found[slot] = OWN | least >> 1
    return found


def band_hashes(signature: Sequence[int], bands: int) -> list[int]:
    """A 64-bit hash of each band's slots; equal slots in two bands have different hashes."""
    rows = len(signature) // bands
    found = []
    for band in range(bands):
        h = band + 1
        for value in signature[band * rows : (band + 1) * rows]:
            h = mix((h * BASE + value) & MASK)
        found.append(h)
    return found
