"""The state of one call of `search.match_texts`: an int64 array of sizes, numbers and addresses."""

from __future__ import annotations

BLOCK = 1 << 15
"""Bytes of text taken together (a longer text makes a block of its own)."""
TEXTS = 1 << 10
"""Texts taken together at most."""
STRIDE = 1 << 10
"""Tokens whose occurrences are followed together."""
DIGIT = 10
"""Bits of one pass of the sort of hits."""
BUCKETS = 1 << DIGIT
DIGITS = 4
"""Digits of a hit at most: 28 bits of an entry, those of TEXTS."""

(
    # The texts: bytes, int64 starts and ends, their number.
    DATA, STARTS, ENDS, ROWS,
    # The automaton's sections and numbers.
    FIRST, FIRST_SPREAD, FIRST_SIZE, POOL, POOL_SIZE, PAIRS, PAIR_SPREAD, BLOOM, BLOOM_SHIFT, TAILS,
    VARIANTS, CHAIN, CLASSES, PAGE_STARTS, PAGES, DIRECT, COLLAPSE, MULTIPLE, SEED, ENTRIES,
    # Scratch for the bytes and tokens of a block.
    RAW, BITS, KEYS, OFFSETS, LENGTHS, PLACES, JOINS, GAPS, OWNERS, WORDS, STEPS, NEXTS, WAITING,
    # Scratch for a stride.
    CANDIDATES, HOMES, ATS, BEGINS, TAIL_REFS, TAIL_ATS, TAIL_BEGINS, TALLY,
    # Hits of a block, twice, and their room.
    HITS, SPARE, HITS_ROOM, HITS_NEED,
    # Output: ids and their room, counts of each text; where it stands.
    IDS, IDS_ROOM, IDS_NEED, COUNTS, ROW, USED,
    FIELDS,
) = range(56)  # fmt: skip
