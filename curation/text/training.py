"""Training a byte-level BPE tokenizer on a sample of documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from schemas.errors import UsageError
from schemas.ids import uniform

SALT_TOKENIZER = 4
"""Salt for the sample that a tokenizer is trained on."""

END = "<|endoftext|>"
SMALLEST = 257
"""A byte-level vocabulary holds every byte and the end of text."""


def sampled(ids: pa.Array | pa.ChunkedArray, share: float, seed: int) -> np.ndarray:
    """bool[n]: which documents are in the sample, a function of id, share and seed alone."""
    return uniform(seed, 0, ids, SALT_TOKENIZER) < share


def train_bpe(texts: Iterable[str], vocabulary: int, special: Sequence[str] = ()) -> bytes:
    """The tokenizer.json of a byte-level BPE with exactly ``vocabulary`` ids.

    Id 0 is ``<|endoftext|>``, then come ``special`` and the bytes, so every text has an encoding.
    Byte-level as in GPT-2, digits apart one by one; pieces of a text do not depend on what stands
    before it. The same texts, in any order, give the same bytes. Raises UsageError if they hold
    fewer merges than asked for.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, *(token for token in special if token != END)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size()
    if found != vocabulary:
        raise UsageError(
            f"vocabulary={vocabulary}: the sample of the training split has merges for {found} tokens "
            f"only; give vocabulary={found} or less, or more text"
        )
    return tokenizer.to_str(pretty=False).encode()
