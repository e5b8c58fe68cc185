"""Evaluation `lambada`: the last word of a passage (Paperno et al. 2016), accuracy and perplexity.

As the task of that name in EleutherAI's lm-evaluation-harness: the continuation is a space and the
word; accuracy counts those that greedy decoding gives; perplexity is exp of minus the mean of
ln p(word), by word and not by token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trainer.evaluation.continuations import continued, records
from trainer.evaluation.intervals import mean_interval

if TYPE_CHECKING:
    from trainer.evaluation.language import LanguageModel

LANGUAGE = True
"""This evaluation is of language models."""

_Z = 1.959964  # of a 95 % interval


class Settings(BaseModel):
    """Settings of ``trainer eval RUN lambada path=...``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        description="JSON lines with context and target, or a folder with lambada.jsonl.gz"
    )
    records: int | None = Field(None, ge=1, description="at most so many, the first (default: all)")


def evaluate(loaded: LanguageModel, settings: Settings) -> dict[str, Any]:
    """Score passages; one row, ``lambada``."""
    rows = records(settings.path, "lambada.jsonl.gz", ("context", "target"))[: settings.records]
    pairs = [(str(row["context"]), f" {row['target']}") for row in rows]
    found = continued(loaded, pairs, "passages")
    logs = np.array([log for log, _ in found])
    accuracy = mean_interval([float(greedy) for _, greedy in found]).to_json()
    half = _Z * logs.std(ddof=1) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    perplexity = {
        "mean": math.exp(-logs.mean()),
        "low": math.exp(-logs.mean() - half),
        "high": math.exp(min(700.0, -logs.mean() + half)),
        "n": float(len(logs)),
    }
    return {
        "headline": {"metric": "accuracy of the last word", **accuracy, "chance": None},
        "amounts": ["perplexity"],
        "rows": {"lambada": {"accuracy": accuracy, "perplexity": perplexity}},
        "interval": "95 %: accuracy Wilson's, perplexity by the standard error of ln p",
    }
