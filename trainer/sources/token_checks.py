"""Whether token data, a model and a tokenizer fit one another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from schemas.dataset import Dataset
from schemas.errors import InputError, UsageError
from trainer import data_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from trainer.sources.tokens import Tokens

TOKENIZER = "tokenizer.json"
"""Blob of a token dataset: the tokenizer that made it."""


def check_model(source: Tokens, config: Any) -> None:
    """Raise UsageError for a model of fewer positions than a sequence, or of fewer tokens."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and source.sequence > positions:
        raise UsageError(
            f"data.sequence_length={source.sequence}: the model has {positions} positions; give "
            f"data.sequence_length={positions} at most, or a model with more"
        )
    known = getattr(config, "vocab_size", None)
    for dataset, alphabet in source.alphabets():
        if known is not None and alphabet.vocabulary > known:
            raise UsageError(
                f"{dataset.storage.url} has a vocabulary of {alphabet.vocabulary} tokens, the model "
                f"one of {known}: tokenise the data with the model's tokenizer, or train a model of "
                "the data's size (tokenizer={name: data})"
            )


def check_tokenizers(source: Tokens, tokenizer: Tokenizer | None) -> None:
    """Compare the run's tokenizer with the data's, and those of a mixture with one another.

    UsageError where they differ, InputError for data that has none.
    """
    first: tuple[Dataset, str] | None = None
    for dataset, _ in source.alphabets():
        blob = dataset.manifest.blobs.get(TOKENIZER)
        if blob is None:
            raise InputError(
                f"{dataset.storage.url} has no blob {TOKENIZER}, so nothing says which tokenizer made "
                "its tokens: build it anew with `dataflows run tokens`"
            )
        digest = str(blob["digest"])
        if first is not None and digest != first[1]:
            raise UsageError(
                f"data.mix: {dataset.storage.url} was made by tokenizer {digest[:12]}, "
                f"{first[0].storage.url} by {first[1][:12]}: their ids mean different tokens; tokenise "
                "both with one tokenizer"
            )
        first = first or (dataset, digest)
    if tokenizer is not None and first is not None:
        dataset, digest = first
        own = data_tokenizer.parse(dataset.blob(TOKENIZER).read_bytes(), dataset.storage.url)
        if json.loads(own.to_str()) != json.loads(tokenizer.to_str()):
            raise UsageError(
                f"tokenizer: the run's is another than the one that made {dataset.storage.url} "
                f"({digest[:12]}), so the ids would mean other tokens: give tokenizer={{name: data}}, or "
                "tokenise the data with the run's"
            )
