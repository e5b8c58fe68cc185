"""The symmetric contrastive loss, as plain as it can be written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch.nn.functional import cross_entropy

from trainer.config import RunConfig
from trainer.protocols import Batch, Parts


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")


def loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The mean over a whole batch: the reference of all tests."""
    logits = scale * image @ text.T
    target = torch.arange(len(image))
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


class Contrastive:
    additive = False
    weights: Mapping[str, float] = {"contrastive": 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"contrastive": len(batch["image"])}

    def represent(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        image, text, scale = model(batch["image"], batch["text"])
        return {"image": image, "text": text, "scale": scale}

    def components(
        self, local: Mapping[str, torch.Tensor], everywhere: Mapping[str, torch.Tensor], offset: int
    ) -> dict[str, torch.Tensor]:
        target = torch.arange(len(local["image"])) + offset
        scale = local["scale"]
        to_text = scale * local["image"] @ everywhere["text"].T
        to_image = scale * local["text"] @ everywhere["image"].T
        both = [cross_entropy(logits, target, reduction="sum") for logits in (to_text, to_image)]
        return {"contrastive": (both[0] + both[1]) / 2}


def build(settings: Settings, config: RunConfig, parts: Parts) -> Contrastive:
    return Contrastive()
