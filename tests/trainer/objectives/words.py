"""Sequences of short random documents, a pure function of their position: the batch of a token source."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from trainer import config
from trainer.config import RunConfig
from trainer.protocols import Batch, Parts, Positions


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    vocabulary: int = 64
    length: int = 24
    document_mask: bool = True
    bad: int | None = None  # a token id that every sequence has


class Words:
    def __init__(self, settings: Settings) -> None:
        self.digest = "words"
        self.sequence = settings.length
        self.document_mask = settings.document_mask
        self._settings = settings

    def samples(self, epochs: float) -> int:
        return int(100 * epochs)

    def batch(self, positions: Positions) -> Batch:
        rows = [self._sample(int(k)) for k in positions]
        return {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]}

    def places(self, positions: Positions) -> list[dict[str, Any]]:
        return [{"epoch": 0, "ids": {"doc_id": f"{k:04x}"}} for k in positions]

    def _sample(self, k: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(k)
        length = self._settings.length
        lengths: list[int] = []
        while sum(lengths) < length:
            lengths.append(int(random.integers(1, 11)))
        segments = np.repeat(np.arange(len(lengths)), lengths)[:length]
        places = np.concatenate([np.arange(n) for n in lengths])[:length]
        # Each token is the one before it plus a step of the document's: there is something to learn.
        steps = random.integers(1, 4, len(lengths))[segments]
        tokens = (places * steps + segments * 7) % self._settings.vocabulary
        if self._settings.bad is not None:
            tokens[3] = self._settings.bad
        labels = np.append(tokens[1:], -100)
        if self._settings.document_mask:
            labels[:-1][segments[1:] != segments[:-1]] = -100
        else:
            places = np.arange(length)
        if k % 5 == 0:  # padding, so that counts differ from sample to sample
            segments[-6:], labels[-7:], tokens[-6:] = -1, -100, 0
        return {
            "input_ids": tokens.astype(np.int64),
            "labels": labels.astype(np.int64),
            "position_ids": places.astype(np.int64),
            "segments": segments.astype(np.int32),
        }


def build(settings: Settings, config: RunConfig, parts: Parts) -> Words:
    return Words(settings)


def register() -> None:
    """Make the source known by name, in this process."""
    parts = cast("dict[str, dict[str, str]]", config.PARTS)
    parts["data"]["words"] = "tests.trainer.objectives.words"


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
}


def run_config(output: Any, **changes: Any) -> RunConfig:
    """Settings of a run of a Llama of some 20,000 parameters."""
    tree: dict[str, Any] = {
        "recipe": "llama-tiny",
        "output": str(output),
        "model": {"name": "decoder", "size": "tiny", "shape": SHAPE},
        "data": {"name": "words"},
        "objective": {"name": "language"},
        "length": {"steps": 2},
        "batch": {"size": 8},
        "optimizer": {"lr": 1e-2},
        "schedule": {"name": "constant"},
        "log_every": 1,
    }
    return RunConfig.model_validate({**tree, **changes})
