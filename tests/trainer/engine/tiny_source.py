"""Samples that are a pure function of their position; epochs of 100."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from trainer.config import RunConfig
from trainer.protocols import Batch, Parts, Positions

EPOCH = 100
SUFFIX = "digest"


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    bad: int | None = None  # the position of a sample that is not a number
    stop_at: int | None = None  # the position whose reading brings a signal, the first time
    signal: int = 15
    dataset: str = "tiny"


class TinySource:
    def __init__(self, settings: Settings) -> None:
        self.digest = f"{settings.dataset}-{SUFFIX}"
        self._settings = settings
        self._bad = settings.bad

    def samples(self, epochs: float) -> int:
        return int(EPOCH * epochs)

    def batch(self, positions: Positions) -> Batch:
        if self._settings.stop_at in positions:
            signal.raise_signal(self._settings.signal)
        rows = [self._sample(int(k)) for k in positions]
        return {
            "image": torch.from_numpy(np.stack([image for image, _ in rows])),
            "text": torch.from_numpy(np.stack([text for _, text in rows])),
            "position": torch.from_numpy(positions.copy()),
        }

    def places(self, positions: Positions) -> list[dict[str, Any]]:
        return [{"epoch": int(k) // EPOCH, "ids": {"pair_id": f"{k:04x}"}} for k in positions]

    def _sample(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(k)
        kind = int(random.integers(0, 16))
        image = random.normal(size=12).astype(np.float32) * 0.5
        image[kind % 12] += 2.0
        if k == self._bad:
            image[0] = np.nan
        return image, np.array([kind, int(random.integers(0, 16))])


def build(settings: Settings, config: RunConfig, parts: Parts) -> TinySource:
    return TinySource(settings)
