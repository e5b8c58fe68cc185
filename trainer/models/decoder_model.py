"""Llama and GPT-2 of `transformers` with what training them needs: losses inside the head, documents
that do not see one another, weights that depend on a seed and names alone.

Imports torch and `transformers`; import it only where a model is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import initialization
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from schemas.command_line import suggest
from schemas.errors import InputError, UsageError
from trainer.models import library
from trainer.models.weights import Drawn, Origin, Stored, fill, without_weights
from trainer.objectives.linear_cross_entropy import token_divergence, token_losses
from trainer.objectives.top_k_divergence import TopK, top_k_divergence

library.settle()

Teacher = tuple[torch.Tensor, torch.Tensor, float] | TopK
"""Hidden states of a teacher [..., e], its output weight [V, e], and the temperature; or its likeliest
tokens."""


class Head(nn.Linear):
    """The output layer. Losses are computed in here, where ZeRO-3 has the weight gathered."""

    def forward(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor | None = None,
        rows: int | None = None,
        teacher: Teacher | None = None,
    ) -> Any:
        """Return logits [..., V], or with targets the losses of `Decoder.forward`."""
        if targets is None:
            return super().forward(hidden)
        loss, partition = token_losses(hidden, self.weight, targets, rows)
        found = {"loss": loss, "log_partition": partition}
        if teacher is not None:
            found["divergence"] = self._divergence(hidden, targets >= 0, rows, teacher)
        return found

    def _divergence(
        self, hidden: torch.Tensor, counted: torch.Tensor, rows: int | None, teacher: Teacher
    ) -> torch.Tensor:
        if isinstance(teacher, TopK):
            return top_k_divergence(hidden, self.weight, teacher, counted, rows)
        states, weight, temperature = teacher
        return token_divergence(hidden, self.weight, (states, weight), counted, temperature, rows)


class ExactRotaryEmbedding(LlamaRotaryEmbedding):
    """Keeps its frequencies in fp32 when the model becomes bf16.

    Rounded to bf16 a frequency is off by up to 0.2 %: an angle of 2,000 radians by 4. The library
    recognises a module that has frequencies to compute by this name.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        exact = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        found = super()._apply(fn, recurse)
        for name, buffer in exact.items():
            now = cast(torch.Tensor, self._buffers[name])
            if not buffer.is_meta and now.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(now.device)
        return found


class Decoder(transformers.PreTrainedModel):
    """What `LlamaForCausalLM` and `GPT2LMHeadModel` below add to those of the library."""

    spared: Sequence[str] = ()
    """Names or shell patterns of parameters without weight decay, besides norms and biases."""

    origin: Origin
    """Of the first weights, unrounded."""

    def _losses_in_head(self) -> None:
        """Put `Head` in the place of the output layer, over the same weight."""
        old = cast(nn.Linear, self.get_output_embeddings())
        head = Head(old.in_features, old.out_features, bias=False, device="meta")
        head.weight = old.weight
        self.set_output_embeddings(head)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        targets: torch.Tensor | None = None,
        rows: int | None = None,
        teacher: Teacher | None = None,
        **rest: Any,
    ) -> Any:
        """As the library's, unless ``targets`` (int64 [n, T], -100 is not counted) are given.

        Then a dict of fp32 [n, T]: ``loss``, -log p(target); ``log_partition``; with ``teacher`` also
        ``divergence``, KL(teacher || student). Logits of at most ``rows`` tokens exist at once.
        Where ``position_ids`` [n, T] begin again is a border of documents, which attention does not
        cross; without them it reaches back to the first token of the sequence.
        """
        if targets is None:
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                labels=labels,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **rest,
            )
        hidden = self.hidden(cast(torch.Tensor, input_ids), position_ids)
        return cast(nn.Module, self.get_output_embeddings())(hidden, targets, rows, teacher)

    def hidden(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the states [n, T, d] that the output layer takes; as `forward` with targets.

        UsageError for more tokens than the model has positions.
        """
        check_length(self.config, input_ids.shape[1])
        # A mask of our own: the library's guess whether sequences are packed waits for the device, and
        # is left out whenever there is a cache, which its configurations turn on.
        mask = document_mask(position_ids) if position_ids is not None else None
        found = self.base_model(
            input_ids=input_ids, attention_mask=mask, position_ids=position_ids, use_cache=False
        )
        return cast(torch.Tensor, found.last_hidden_state)

    def matches(self, pattern: str) -> bool:
        """Return whether a name or shell pattern names a parameter."""
        return any(fnmatchcase(name, pattern) for name, _ in self.named_parameters())

    def no_decay(self) -> frozenset[str]:
        """Return names of parameters without weight decay, as far as not norms or biases."""
        names = [name for name, _ in self.named_parameters()]
        return frozenset(n for n in names if any(fnmatchcase(n, p) for p in self.spared))


class LlamaForCausalLM(Decoder, transformers.LlamaForCausalLM):
    """Named as its base, so that a saved configuration names the class that loads it."""

    def __init__(self, config: transformers.LlamaConfig) -> None:
        super().__init__(config)
        self._losses_in_head()
        self.model.rotary_emb = ExactRotaryEmbedding(config)


class GPT2LMHeadModel(Decoder, transformers.GPT2LMHeadModel):
    """Named as its base."""

    def __init__(self, config: transformers.GPT2Config) -> None:
        super().__init__(config)
        self._losses_in_head()


CLASSES: Mapping[str, tuple[Any, Any]] = {
    "llama": (transformers.LlamaConfig, LlamaForCausalLM),
    "gpt2": (transformers.GPT2Config, GPT2LMHeadModel),
}
"""Configuration and model by ``model_type``."""

DROPOUTS: Mapping[str, tuple[str, ...]] = {
    "llama": ("attention_dropout",),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
}
"""Settings of a configuration that are shares of dropout."""

ROPES = ("default", *sorted(ROPE_INIT_FUNCTIONS))
"""Scalings of rotary positions that the library has."""


def document_mask(position_ids: torch.Tensor) -> torch.Tensor:
    """Return which token sees which: bool [n, 1, T, T], earlier ones of its own document.

    ``position_ids`` [n, T]: a document begins wherever they are not one more than the one before.
    """
    first = position_ids[:, :1] - 1
    document = (position_ids.diff(prepend=first) != 1).cumsum(-1)
    same = document[:, :, None] == document[:, None, :]
    return same.tril_()[:, None]


def check_length(config: Any, length: int, fix: str = "") -> None:
    """Raise UsageError if a sequence is longer than the model's range of positions."""
    most = int(config.max_position_embeddings)
    if length > most:
        fix = fix or (
            "model.context= of at least that" if config.model_type == "llama" else "another model"
        )
        raise UsageError(
            f"a sequence of {length:,} tokens is longer than the {most:,} positions of the model: "
            f"give shorter sequences, or {fix}"
        )


def new(family: str, shape: Mapping[str, Any], seed: int, *, hollow: bool = False) -> Decoder:
    """Return a model with new weights. ``shape``: arguments of the family's configuration.

    ``hollow``: weights stay on the meta device until something takes them from ``origin``. UsageError
    for a shape that the library refuses.
    """
    make, kind = CLASSES[family]
    known = {*make().to_dict(), *make.attribute_map}
    if unknown := sorted(set(shape) - known):
        hint = suggest(unknown[0], known)
        raise UsageError(f"model.shape.{unknown[0]}: no setting of {make.__name__}.{hint}")
    model = _unfilled(kind, configured(make, shape), hollow)
    model.origin = Drawn(model, seed)
    fill(model)
    return model


def _unfilled(kind: Any, config: Any, hollow: bool) -> Decoder:
    """A model whose weights are whatever memory holds."""
    # Every weight comes from its origin; the library's own draws would only take time.
    with initialization.no_init_weights(), without_weights() if hollow else nullcontext():
        model = kind._from_config(config, attn_implementation="sdpa", dtype=torch.float32)
        model.tie_weights()  # as if they had been drawn
    return cast(Decoder, model)


def configured(make: Callable[..., Any], shape: Mapping[str, Any]) -> Any:
    """Return ``make(**shape)``, a configuration of the library; UsageError for what it refuses."""
    try:
        config = make(**shape)
    except Exception as error:  # huggingface_hub's own classes, ValueError, KeyError, TypeError
        said = " ".join(str(error).split())[:300]
        raise UsageError(f"model: this shape is refused: {said}") from None
    rope = getattr(config, "rope_parameters", None)
    if rope and rope["rope_type"] not in ROPES:
        raise UsageError(
            f"model.rope_scaling.rope_type={rope['rope_type']}: give one of {', '.join(ROPES)}"
        )
    return config


def from_folder(
    folder: str,
    change: Mapping[str, Any],
    *,
    dropout: float | None = None,
    hollow: bool = False,
) -> Decoder:
    """Return the model of a checkpoint of `transformers` in fp32: a Llama or a GPT-2.

    ``change``: settings of its configuration that are to be others (context extension); ``dropout``: in
    place of the checkpoint's; ``hollow``: as in `new`. InputError if the folder holds no such model, or
    lacks weights.
    """
    path = Path(folder).expanduser()
    try:
        kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise InputError(
            f"{folder}: no readable config.json; give a folder that `save_pretrained` of a causal "
            "language model wrote"
        ) from None
    if kind not in CLASSES:
        raise InputError(
            f"{folder} holds a model of type {kind}; give one of type {' or '.join(CLASSES)}"
        )
    make, of = CLASSES[kind]
    config = _extended(folder, configured(lambda: make.from_pretrained(path), {}), change)
    if getattr(config, "quantization_config", None):
        raise InputError(f"{folder} holds quantised weights; give a checkpoint in bf16 or fp32")
    if dropout is not None:
        for name in DROPOUTS[kind]:
            setattr(config, name, dropout)
    model = _unfilled(of, config, hollow)
    model.origin = Stored(folder, model)
    fill(model)
    if (path / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(path)
    return cast(Decoder, model.eval())


def _extended(folder: str, config: Any, change: Mapping[str, Any]) -> Any:
    """A checkpoint's configuration with another reach of its positions."""
    if not change:
        return config
    if config.model_type == "gpt2":
        name = next(iter(change))
        raise UsageError(
            f"model.{'context' if name.startswith('max') else name}: the {config.n_positions:,} positions of "
            f"the GPT-2 in {folder} are learned; leave it out"
        )
    tree = config.to_dict()
    rope = dict(tree["rope_parameters"])
    tree["max_position_embeddings"] = change.get(
        "max_position_embeddings", config.max_position_embeddings
    )
    if given := change.get("rope_scaling"):
        # A checkpoint that was extended before knows what it was trained with; its other numbers are of
        # its own way of scaling.
        original = rope.get("original_max_position_embeddings", config.max_position_embeddings)
        if given.get("rope_type") != rope["rope_type"]:
            rope = {name: rope[name] for name in _OF_ANY_ROPE if name in rope}
        rope |= given
        if rope["rope_type"] in _REMEMBERING:
            rope.setdefault("original_max_position_embeddings", original)
    if "rope_theta" in change:
        rope["rope_theta"] = change["rope_theta"]
    return configured(type(config).from_dict, {"config_dict": {**tree, "rope_parameters": rope}})


_OF_ANY_ROPE = ("rope_type", "rope_theta", "partial_rotary_factor")
_REMEMBERING = ("yarn", "longrope", "llama3")  # scalings that depend on the length trained before
