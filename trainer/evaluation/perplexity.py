"""Evaluation `perplexity`: of given texts by the word, by the byte, and in bits per byte.

As ``loglikelihood_rolling`` of EleutherAI's lm-evaluation-harness, so that numbers can be compared: an
end-of-text token stands before the text's first token and none is asked for after its last; a text
longer than the context is cut into windows that do not overlap but for one token, the last one as full
as it can be; a text's words are the parts between runs of white space. `bits` scores whole documents of
token data, with their ends, in overlapping windows.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError, UsageError
from trainer.evaluation.bits import document_log_probs, ratio
from trainer.evaluation.continuations import records

if TYPE_CHECKING:
    from trainer.evaluation.language import LanguageModel

LANGUAGE = True
"""This evaluation is of language models."""


class Settings(BaseModel):
    """Settings of ``trainer eval RUN perplexity path=...``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="JSON lines with the texts, gzipped or not")
    field: str = Field("text", description="the key of the texts")
    records: int | None = Field(None, ge=1, description="at most so many, the first (default: all)")


def evaluate(loaded: LanguageModel, settings: Settings) -> dict[str, Any]:
    """Score texts; one row, ``texts``. UsageError for a model without an end-of-text token."""
    if loaded.eos is None:
        raise UsageError(
            "perplexity: the model has no end-of-text token, which stands before a text's first token"
        )
    found = records(settings.path, "texts.jsonl.gz", (settings.field,))[: settings.records]
    texts = [str(row[settings.field]) for row in found]
    sizes = np.array([len(text.encode()) for text in texts], np.float64)
    words = np.array([len(re.split(r"\s+", text)) for text in texts], np.float64)
    if not sizes.sum():
        raise InputError(f"path={settings.path}: every text is empty")
    tokens = [np.array(loaded.encode(text), np.int64) for text in texts]
    nats = -np.array(document_log_probs(loaded, tokens, loaded.context, "eos"))
    by_byte = ratio(nats / math.log(2), sizes)
    row = {
        "bits_per_byte": by_byte,
        "byte_perplexity": _raised(ratio(nats, sizes)),
        "word_perplexity": _raised(ratio(nats, words)),
    }
    return {
        "headline": {"metric": "bits per byte", **by_byte, "chance": None},
        "amounts": ["bits per byte", *row],
        "rows": {"texts": row},
        "tokens": sum(map(len, tokens)),
        "bytes": int(sizes.sum()),
        "words": int(words.sum()),
        "interval": "95 %, of a ratio of sums over texts (normal approximation)",
    }


def _raised(nats: dict[str, float]) -> dict[str, float]:
    """e to the power of a mean and its limits."""
    limits = {name: math.exp(min(700.0, nats[name])) for name in ("mean", "low", "high")}
    return {**limits, "n": nats["n"]}
