"""The additive objective, with faults at chosen positions: of the loss, of the gradient alone, and
values far too large."""

from __future__ import annotations

import signal
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from tests.trainer.engine.tiny_additive import Additive
from trainer.config import RunConfig
from trainer.protocols import Batch, Parts


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    loss: list[int] = []
    """Positions whose loss is no number."""
    gradient: list[int] = []
    """Positions whose gradient is no number, and whose loss is one."""
    large: list[int] = []
    """Positions that make the loss large, and not the gradient."""
    steep: list[int] = []
    """Positions that make the gradient large, and not the loss."""
    told: list[int] = []
    """Positions in whose backward pass SIGTERM comes."""


class Steep(torch.autograd.Function):
    """Its value is its argument's; its gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.factor, None


class Told(torch.autograd.Function):
    """Its value and gradient are its argument's; SIGTERM comes in its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        signal.raise_signal(signal.SIGTERM)
        return gradient


class Faulty(Additive):
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def components(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        found = super().components(model, batch)
        here = set(batch["position"].tolist())
        for name, value in found.items():
            if here & set(self.settings.loss):
                value = value * float("nan")
            if here & set(self.settings.gradient):
                value = Steep.apply(value, float("nan"))
            if here & set(self.settings.large):
                value = value + 1e4
            if here & set(self.settings.steep):
                value = Steep.apply(value, 1e4)
            if here & set(self.settings.told) and name == "near":
                value = Told.apply(value)
            found[name] = value
        return found


def build(settings: Settings, config: RunConfig, parts: Parts) -> Faulty:
    return Faulty(settings)
