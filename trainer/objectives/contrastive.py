"""The symmetric contrastive loss of CLIP over the global batch (MetaCLIP 2, section 3.4).

For normalised features x, y and scale s of N pairs: the mean over pairs of
``(CE(s x_i . Y, i) + CE(s y_i . X, i)) / 2``. Each rank computes its own rows against all ("local
loss"), so the logits of a rank are n x N, not N x N.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

    from trainer.config import RunConfig
    from trainer.protocols import Batch, Parts


class Settings(BaseModel):
    """The paper's loss has none: its temperature is a weight of the model."""

    model_config = ConfigDict(extra="forbid")


class Contrastive:
    """A `trainer.protocols.GlobalObjective` of one component, ``contrastive``, a sum over pairs."""

    additive = False
    weights: Mapping[str, float] = {"contrastive": 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of pairs."""
        return {"contrastive": len(batch["input_ids"])}

    def represent(self, model: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return ``image`` and ``text`` [n, d], of length 1, and ``scale``, 0-d; all in fp32."""
        from torch.nn.functional import normalize

        found = model(pixel_values=batch["pixel_values"], input_ids=batch["input_ids"])
        return {
            "image": normalize(found["image"].float(), dim=-1),
            "text": normalize(found["text"].float(), dim=-1),
            "scale": found["logit_scale"].exp(),
        }

    def components(
        self, local: Mapping[str, torch.Tensor], everywhere: Mapping[str, torch.Tensor], offset: int
    ) -> Mapping[str, torch.Tensor]:
        """Return the loss summed over this rank's pairs, rows ``offset`` onwards of all pairs."""
        import torch
        from torch.nn.functional import cross_entropy

        image, text, scale = local["image"], local["text"], local["scale"]
        labels = torch.arange(offset, offset + len(image), device=image.device)
        by_image = cross_entropy(scale * image @ everywhere["text"].T, labels, reduction="sum")
        by_text = cross_entropy(scale * text @ everywhere["image"].T, labels, reduction="sum")
        return {"contrastive": (by_image + by_text) / 2}


def uninformed(config: RunConfig) -> tuple[float, str]:
    """Return the loss of a model for which all pairs look alike, and its formula, for reports."""
    return math.log(config.batch.size), "ln(batch.size)"


def build(settings: Settings, config: RunConfig, parts: Parts) -> Contrastive:
    """Return the objective."""
    return Contrastive()
