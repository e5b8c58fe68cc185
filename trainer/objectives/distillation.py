"""Distillation from a frozen teacher (Hinton et al. 2015, arXiv:1503.02531, section 2), live or kept.

Over tokens that count, with the softmaxes p of the student and q of the teacher at temperature T,

    loss = (1 - alpha) mean CE(label, student at temperature 1) + alpha T^2 mean KL(q || p)

The factor T^2 keeps the second part's gradient as large as at T = 1.

``teacher``: the model itself. It reads the same tokens with the same document borders, in the run's
precision. Every rank holds a whole copy, outside DeepSpeed; under ZeRO-3 its weights are cut over ranks as
the student's are, and its output layer is whole on each from the forward to the backward pass.

``logits``: the k likeliest tokens that `trainer logits` kept, and the mass of the others as one more
outcome (`trainer.objectives.top_k_divergence`). Equal to a live teacher where k is the vocabulary and
what it read is the same (`trainer.teacher.caching`). The mass of the others at one temperature does
not say what it is at another, so T is that of the kept ones, unless k is the vocabulary.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import UsageError
from trainer.objectives import language

if TYPE_CHECKING:
    import torch

    from trainer.config import RunConfig
    from trainer.engine.partition import Frozen
    from trainer.protocols import Batch, Parts
    from trainer.teacher.cached import Cached


class Settings(BaseModel):
    """Settings of the objective."""

    model_config = ConfigDict(extra="forbid")

    teacher: str | None = Field(
        None, description="folder of a Llama or GPT-2 checkpoint of `transformers`"
    )
    logits: str | list[str] | None = Field(
        None, description="what `trainer logits` made of the token data; of a mixture, one of each"
    )
    temperature: float | None = Field(
        None, gt=0, le=100, description="of both in the KL (default: 1, or that of logits)"
    )
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the KL; 1 - alpha of the labels")
    rows: int | None = Field(
        None,
        ge=1,
        description="tokens whose logits exist at once (default: as many as 256 MB hold)",
    )

    @model_validator(mode="after")
    def _one(self) -> Settings:
        if (self.teacher is None) == (not self.logits):
            raise ValueError("give exactly one of objective.teacher= and objective.logits=")
        return self


class _Distillation(language.Language, ABC):
    """A `trainer.protocols.Objective` of ``token`` and ``divergence`` (nats, sums over tokens)."""

    def __init__(
        self, settings: Settings, temperature: float, vocabulary: int, documents: bool
    ) -> None:
        super().__init__(language.Settings(z_loss=0.0, rows=settings.rows), vocabulary, documents)
        self.weights: Mapping[str, float] = {
            "token": 1 - settings.alpha,
            "divergence": settings.alpha * temperature**2,
        }
        self._temperature = temperature

    def components(self, model: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return the sums over this part of a batch; the gradient reaches the student alone."""
        inputs = self.inputs(batch)
        with self._answers(batch, inputs) as teacher:
            found = model(**inputs, teacher=teacher)
        return {"token": found["loss"].sum(), "divergence": found["divergence"].sum()}

    @abstractmethod
    def _answers(self, batch: Batch, inputs: dict[str, Any]) -> AbstractContextManager[Any]:
        """What the student's head takes of the teacher, good for the forward pass."""


class Live(_Distillation):
    """From a model. ``cut``: makes what reads it under ZeRO-3."""

    def __init__(
        self,
        settings: Settings,
        teacher: Any,
        vocabulary: int,
        documents: bool,
        cut: Callable[[Any, str], Frozen] | None = None,
    ) -> None:
        super().__init__(settings, settings.temperature or 1.0, vocabulary, documents)
        self._teacher, self._cut = teacher, cut
        self._frozen: Frozen | None = None

    @contextmanager
    def _answers(self, batch: Batch, inputs: dict[str, Any]) -> Iterator[Any]:
        import torch

        if self._cut is not None and self._frozen is None:
            # Now, when DeepSpeed has joined the ranks.
            self._frozen = self._cut(self._teacher, str(batch["input_ids"].device))
        if self._frozen is None:
            self._teacher.to(batch["input_ids"].device)
        with torch.no_grad():
            states = self._teacher.hidden(inputs["input_ids"], inputs["position_ids"])
        output = self._teacher.lm_head.weight
        with self._frozen.gathered(output) if self._frozen else nullcontext(output) as weight:
            yield states, weight, self._temperature


class FromLogits(_Distillation):
    """From what a teacher said before; a batch has it (`trainer.sources.tokens.Tokens.beside`)."""

    def __init__(
        self, settings: Settings, logits: Sequence[Cached], vocabulary: int, documents: bool
    ) -> None:
        temperature = settings.temperature or logits[0].temperature
        super().__init__(settings, temperature, vocabulary, documents)
        self._kept = logits[0].temperature

    @contextmanager
    def _answers(self, batch: Batch, inputs: dict[str, Any]) -> Iterator[Any]:
        from trainer.objectives.top_k_divergence import TopK

        log_probs = batch["teacher_log_probs"]
        if self._temperature != self._kept:  # of the whole vocabulary
            log_probs = (log_probs * (self._kept / self._temperature)).log_softmax(-1)
        yield TopK(batch["teacher_ids"], log_probs, batch["teacher_tail"], self._temperature)


def build(settings: Settings, config: RunConfig, parts: Parts) -> Live | FromLogits:
    """Return the objective, with its teacher loaded or its logits opened beside the source's data.

    UsageError for a teacher of another vocabulary or tokenizer, or with fewer positions than a
    sequence has tokens, and for logits of other data or at another temperature; InputError for what
    cannot be read.
    """
    vocabulary = language.vocabulary_of(parts)
    if settings.logits:
        return _from_logits(settings, vocabulary, config, parts)
    return _live(settings, vocabulary, config, parts)


def _live(settings: Settings, vocabulary: int, config: RunConfig, parts: Parts) -> Live:
    import torch

    from trainer.engine import partition
    from trainer.models.decoder import check_tokenizer
    from trainer.models.decoder_model import check_length, from_folder
    from trainer.teacher.folder import folder_of

    folder = folder_of(str(settings.teacher), "objective.teacher=")
    hollow = partition.wanted(config)
    teacher: Any = from_folder(folder, {}, hollow=hollow)
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
    apart = language.documents_apart(parts)
    if hollow:
        return Live(
            settings, teacher, vocabulary, apart, functools.partial(partition.Frozen, config)
        )
    if config.precision == "bf16":
        teacher.to(torch.bfloat16)
    return Live(settings, teacher, vocabulary, apart)


def _from_logits(
    settings: Settings, vocabulary: int, config: RunConfig, parts: Parts
) -> FromLogits:
    from trainer.teacher.cached import keep, opened

    places = [settings.logits] if isinstance(settings.logits, str) else settings.logits or []
    found = opened(places)
    first, place = found[0], found[0].place
    source: Any = parts.source
    if not hasattr(source, "beside"):
        raise UsageError("objective.logits needs token data: give data.name=tokens")
    if first.vocabulary != vocabulary:
        raise UsageError(
            f"objective.logits: the teacher of {place} tells {first.vocabulary:,} tokens apart, and the "
            f"student {vocabulary:,}: both must have one vocabulary"
        )
    wanted = settings.temperature or first.temperature
    if wanted != first.temperature and first.k < vocabulary:
        raise UsageError(
            f"objective.temperature={wanted:g}: {place} has the top {first.k} of {vocabulary:,} tokens at "
            f"temperature {first.temperature:g}, which do not say what the others have at {wanted:g}: "
            f"leave it out, or make them anew with `trainer logits ... temperature={wanted:g}`"
        )
    if not language.documents_apart(parts):
        raise UsageError(
            f"data.document_mask=false: the teacher of {place} read each document alone; leave it "
            "out, or distil with objective.teacher="
        )
    source.beside(found)
    keep(found, config.output)
    return FromLogits(settings, found, vocabulary, True)
