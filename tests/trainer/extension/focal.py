"""Focal loss over tokens: those that the model knows well count less (arXiv:1708.02002, equation 4).

    loss = mean over tokens of (1 - p)^gamma * -log p        p: probability of the token that follows

With ``gamma`` 0 it would be the cross-entropy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

    from trainer.config import RunConfig
    from trainer.protocols import Batch, Parts

IGNORED = -100


class Settings(BaseModel):
    """Settings of the objective."""

    model_config = ConfigDict(extra="forbid")

    gamma: float = Field(2.0, ge=1, description="how much less a well-known token counts")


class Focal:
    """A `trainer.protocols.Objective` of ``focal``, a sum over tokens."""

    additive = True
    weights: Mapping[str, float] = {"focal": 1.0}

    def __init__(self, settings: Settings) -> None:
        self._gamma = settings.gamma

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of tokens that are predicted."""
        return {"focal": int((batch["labels"].numpy() != IGNORED).sum())}

    def components(self, model: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return the sum over this part of a batch."""
        import torch

        inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
        surprise = model(**inputs, targets=batch["labels"])["loss"]  # -log p; 0 where not counted
        unknown = -torch.expm1(-surprise)  # 1 - p
        return {"focal": (unknown**self._gamma * surprise).sum()}


def build(settings: Settings, config: RunConfig, parts: Parts) -> Focal:
    """Return the objective."""
    return Focal(settings)
