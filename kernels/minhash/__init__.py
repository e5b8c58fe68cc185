"""MinHash signatures of texts by compiled code, and the n-grams that they and decontamination use.

`signatures(texts)` and `band_hashes` for near duplicates; `shingles` and `sketch` are its two halves.
The compiler (numba) loads at the first call, not at import. What a word is: `words`; the arithmetic,
slow and plain: `reference`.
"""

from kernels.minhash.arrays import band_hashes, components, shingles, signatures, sketch
from kernels.minhash.reference import EMPTY
from kernels.minhash.words import UNICODE_VERSION, words_of

__all__ = [
    "EMPTY",
    "UNICODE_VERSION",
    "band_hashes",
    "components",
    "shingles",
    "signatures",
    "sketch",
    "words_of",
]
