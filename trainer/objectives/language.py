"""Next-token cross-entropy, a sum over tokens; with `z_loss` also a sum of squared log-denominators.

A batch has ``input_ids``, ``labels`` (int64 [n, T]; label t is the token after input t, -100 is not
counted) and ``position_ids``, which begin again at each document where documents do not see one another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch

    from trainer.config import RunConfig
    from trainer.protocols import Batch, Parts

IGNORED = -100


class Settings(BaseModel):
    """Settings of the objective."""

    model_config = ConfigDict(extra="forbid")

    z_loss: float = Field(
        0.0, ge=0, description="weight of the mean square of the log of the softmax's denominator"
    )
    rows: int | None = Field(
        None,
        ge=1,
        description="tokens whose logits exist at once (default: as many as 256 MB hold)",
    )


class Language:
    """A `trainer.protocols.Objective` of ``token`` (nats, sums over tokens), and perhaps ``z_loss``."""

    additive = True

    def __init__(self, settings: Settings, vocabulary: int, documents: bool) -> None:
        self.weights: Mapping[str, float] = {"token": 1.0} | (
            {"z_loss": settings.z_loss} if settings.z_loss else {}
        )
        self._rows, self._vocabulary, self._documents = settings.rows, vocabulary, documents

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of tokens that are predicted. InputError for an id that is no token."""
        # Through NumPy: the batch is on the CPU, and no device is waited for.
        ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
        for name, values in (("input_ids", ids), ("labels", labels)):
            wrong = (values < 0) | (values >= self._vocabulary)
            if name == "labels":
                wrong &= values != IGNORED
            if wrong.any():
                raise InputError(
                    f"{name} has token {values[wrong][0]}, and the model has tokens 0 to "
                    f"{self._vocabulary - 1:,}: "
                    "tokenise the data with the model's tokenizer, or train a model of its size"
                )
        return dict.fromkeys(self.weights, int((labels != IGNORED).sum()))

    def components(self, model: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return the sums over this part of a batch."""
        found = model(**self.inputs(batch))
        sums = {"token": found["loss"].sum()}
        if "z_loss" in self.weights:
            sums["z_loss"] = found["log_partition"].square().sum()
        return sums

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the arguments of the model."""
        return {
            "input_ids": batch["input_ids"],
            "position_ids": batch["position_ids"] if self._documents else None,
            "targets": batch["labels"],
            "rows": self._rows,
        }


def build(settings: Settings, config: RunConfig, parts: Parts) -> Language:
    """Return the objective. UsageError if sequences are longer than the model's positions."""
    return Language(settings, vocabulary_of(parts), documents_apart(parts))


def vocabulary_of(parts: Parts) -> int:
    """Return the model's tokens, when the source's sequences fit its positions (else UsageError)."""
    config = getattr(parts.model, "config", None)
    if config is None or not hasattr(parts.model, "hidden"):
        raise UsageError("objective.name=language needs a language model: give model.name=decoder")
    from trainer.models.decoder_model import check_length

    if (length := getattr(parts.source, "sequence", None)) is not None:
        check_length(config, int(length))
    return int(config.vocab_size)


def documents_apart(parts: Parts) -> bool:
    """Return whether positions begin again at each document: the source's ``document_mask``."""
    return bool(getattr(parts.source, "document_mask", True))


def uninformed(config: RunConfig) -> tuple[float, str] | None:
    """Return the loss of a model for which all tokens are alike, and its formula, for reports."""
    from trainer.evaluation.language import vocabulary

    tokens = vocabulary(config)
    return (math.log(tokens), f"ln({tokens:,} tokens)") if tokens else None
