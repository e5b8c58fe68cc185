"""A two-tower model of a few thousand parameters, with dropout and a shared temperature."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from trainer.config import RunConfig
from trainer.protocols import Parts


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dropout: float = 0.0
    width: int = 24


class TwoTowers(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Linear(12, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.LayerNorm(width),
            nn.Linear(width, 8),
        )
        self.words = nn.Embedding(16, width)
        self.text = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 8, bias=False))
        self.logit_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.image(image.to(self.image[0].weight.dtype))
        y = self.text(self.words(text).mean(1))
        normal = nn.functional.normalize
        return normal(x, dim=-1), normal(y, dim=-1), self.logit_scale.exp()

    def no_decay(self) -> set[str]:
        return {"words.weight"}


def build(settings: Settings, config: RunConfig, parts: Parts) -> Any:
    return TwoTowers(settings.width, settings.dropout)
