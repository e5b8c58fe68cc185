"""Two additive components with counts that differ from sample to sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from trainer.config import RunConfig
from trainer.protocols import Batch, Parts


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")


def pieces(image: torch.Tensor, text: torch.Tensor, position: torch.Tensor) -> dict[str, Any]:
    """{component: (values of its units, which samples have the unit)}."""
    near = (image * text).sum(-1)
    return {
        "near": ((1 - near) ** 2, position % 16 > 2),
        "even": (image[:, 0] - 0.1, position % 16 % 5 == 1),
    }


class Additive:
    additive = True
    weights: Mapping[str, float] = {"near": 1.0, "even": 0.3}

    def counts(self, batch: Batch) -> dict[str, int]:
        zeros = torch.zeros(len(batch["image"]), 1)
        found = pieces(zeros, zeros, batch["position"])
        return {name: int(chosen.sum()) for name, (_, chosen) in found.items()}

    def components(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        image, text, _ = model(batch["image"], batch["text"])
        found = pieces(image, text, batch["position"])
        return {name: (values * chosen).sum() for name, (values, chosen) in found.items()}


def build(settings: Settings, config: RunConfig, parts: Parts) -> Additive:
    return Additive()
