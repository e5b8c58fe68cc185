"""Distillation from a live, frozen teacher (Hinton et al. 2015, arXiv:1503.02531, section 2).

Over tokens that count, with the softmaxes p of the student and q of the teacher at temperature T,

    loss = (1 - alpha) mean CE(label, student at temperature 1) + alpha T^2 mean KL(q || p)

The factor T^2 keeps the second part's gradient as large as at T = 1. The teacher reads the same tokens
with the same document borders. Every rank holds a whole copy of it, outside DeepSpeed, in the run's
precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import UsageError
from trainer.objectives import language

if TYPE_CHECKING:
    import torch

    from trainer.config import RunConfig
    from trainer.protocols import Batch, Parts


class Settings(BaseModel):
    """Settings of the objective."""

    model_config = ConfigDict(extra="forbid")

    teacher: str = Field(description="folder of a Llama or GPT-2 checkpoint of `transformers`")
    temperature: float = Field(1.0, gt=0, le=100, description="of both distributions in the KL")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the KL; 1 - alpha of the labels")
    rows: int | None = Field(
        None,
        ge=1,
        description="tokens whose logits exist at once (default: as many as 256 MB hold)",
    )


class Distillation(language.Language):
    """A `trainer.protocols.Objective` of ``token`` and ``divergence`` (nats, sums over tokens)."""

    def __init__(self, settings: Settings, teacher: Any, vocabulary: int, documents: bool) -> None:
        super().__init__(language.Settings(z_loss=0.0, rows=settings.rows), vocabulary, documents)
        self.weights: Mapping[str, float] = {
            "token": 1 - settings.alpha,
            "divergence": settings.alpha * settings.temperature**2,
        }
        self._teacher, self._temperature = teacher, settings.temperature

    def components(self, model: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return the sums over this part of a batch; the gradient reaches the student alone."""
        import torch

        inputs = self.inputs(batch)
        teacher = self._teacher.to(batch["input_ids"].device)
        with torch.no_grad():
            states = teacher.hidden(inputs["input_ids"], inputs["position_ids"])
        found = model(**inputs, teacher=(states, teacher.lm_head.weight, self._temperature))
        return {"token": found["loss"].sum(), "divergence": found["divergence"].sum()}


def build(settings: Settings, config: RunConfig, parts: Parts) -> Distillation:
    """Return the objective with its teacher loaded.

    UsageError for a teacher of another vocabulary or tokenizer, or with fewer positions than a
    sequence has tokens; InputError if it cannot be read.
    """
    import torch

    from trainer.models.decoder import check_tokenizer
    from trainer.models.decoder_model import check_length, from_folder

    vocabulary = language.vocabulary_of(parts)
    folder = str(Path(settings.teacher).expanduser())
    teacher: Any = from_folder(folder, {})
    if (known := int(teacher.config.vocab_size)) != vocabulary:
        raise UsageError(
            f"objective.teacher={settings.teacher}: it tells {known:,} tokens apart, and the student "
            f"{vocabulary:,}: both must have one tokenizer, and vocab_size alike in their config.json"
        )
    if parts.tokenizer is not None:
        check_tokenizer(parts.tokenizer, folder, known)
    if (length := getattr(parts.source, "sequence", None)) is not None:
        check_length(teacher.config, int(length), "another objective.teacher=")
    teacher.eval().requires_grad_(False)
    if config.precision == "bf16":
        teacher.to(torch.bfloat16)
    return Distillation(settings, teacher, vocabulary, language.documents_apart(parts))
