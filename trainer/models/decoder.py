"""Decoder language models: Llama and GPT-2 of `transformers`, by size, by shape or from a checkpoint.

Sizes of Multi-Token Attention (arXiv:2504.00927, table 7) and of the next-token baselines of CoCoMix
(arXiv:2502.08524, appendix A). Their parameter counts, where published: 876,553,728 of 880m (table 8
of the first); 69.4, 386.3 and 1,373.4 million of the baselines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import UsageError

if TYPE_CHECKING:
    from trainer.config import RunConfig
    from trainer.protocols import Parts

SizeName = Literal[
    "tiny", "300m", "550m", "880m", "1b", "gpt2-tiny", "gpt2-69m", "gpt2-386m", "gpt2-1.38b"
]

LLAMA_3, GPT_2 = 128_256, 50_257
"""Tokens of the vocabularies that the papers use."""


@dataclass(frozen=True)
class Size:
    """A model's shape. ``mlp``: width of Llama's gated MLP; GPT-2's is 4 times the width."""

    family: Literal["llama", "gpt2"]
    width: int
    layers: int
    heads: int
    mlp: int = 0
    context: int = 2048
    vocabulary: int = LLAMA_3
    rope_theta: float = 100_000.0


def _gpt2(
    width: int, layers: int, heads: int, vocabulary: int = GPT_2, context: int = 1024
) -> Size:
    return Size("gpt2", width, layers, heads, 4 * width, context, vocabulary)


SIZES: dict[SizeName, Size] = {
    "tiny": Size("llama", 192, 4, 3, 512, 512, 4096, 10_000.0),
    "300m": Size("llama", 1024, 20, 16, 2816),
    "550m": Size("llama", 1280, 24, 10, 3584),
    "880m": Size("llama", 1536, 24, 16, 4096),
    "1b": Size("llama", 2048, 24, 16, 5632),
    "gpt2-tiny": _gpt2(256, 6, 4, 8192, 512),
    "gpt2-69m": _gpt2(624, 8, 8),
    "gpt2-386m": _gpt2(1072, 24, 16),
    "gpt2-1.38b": _gpt2(2096, 24, 16),
}
"""All sizes, with input and output embeddings tied. The vocabulary is the tokenizer's in a run; the one
here is for plans, and the published counts."""


class Settings(BaseModel):
    """Either ``size``, from scratch, or ``init_from``."""

    model_config = ConfigDict(extra="forbid")

    size: SizeName | None = None
    init_from: str | None = Field(
        None, description="folder of a Llama or GPT-2 checkpoint of `transformers`"
    )
    shape: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of the library's configuration in place of the size's, as num_hidden_layers",
    )
    context: int | None = Field(
        None, ge=2, description="positions (default: the size's or the checkpoint's)"
    )
    rope_theta: float | None = Field(None, gt=0, description="base of rotary positions (Llama)")
    rope_scaling: dict[str, Any] | None = Field(
        None, description="scaling of rotary positions (Llama), as {rope_type: linear, factor: 2.0}"
    )
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of GPT-2 (Llama: of attention); default: 0, or the checkpoint's",
    )
    no_decay: list[str] = Field(
        default_factory=list,
        description="parameters without weight decay besides norms and biases; * is allowed",
    )
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _one(self) -> Settings:
        if (self.size is None) == (self.init_from is None):
            raise ValueError("give exactly one of model.size= and model.init_from=")
        if self.init_from is not None and self.shape:
            raise ValueError(
                "model.shape: the checkpoint of model.init_from= decides it; leave it out"
            )
        if (self.rope_scaling or {}).get("rope_type") == "dynamic":
            raise ValueError(
                "model.rope_scaling.rope_type=dynamic changes nothing within the model's positions, and no "
                "sequence is longer: give linear, yarn or llama3"
            )
        if self.size is not None and SIZES[self.size].family == "gpt2":
            for name in ("rope_theta", "rope_scaling"):
                if getattr(self, name) is not None:
                    raise ValueError(f"model.{name}: GPT-2 has learned positions; leave it out")
        return self


def build(settings: Settings, config: RunConfig, parts: Parts) -> Any:
    """Return the model (`trainer.models.decoder_model.Decoder`), fp32, in training mode.

    New weights are a function of ``config.seed`` and parameter names: the same on every rank. For ZeRO-3
    in a process that joined others the model has no weights yet (`trainer.engine.partition`). On the
    meta device (a plan) no tokenizer is needed: the vocabulary is then the size's. UsageError for a
    shape that cannot be, without a tokenizer, or if the checkpoint's model was trained with another
    one; InputError if the checkpoint cannot be read.
    """
    from trainer.engine import partition
    from trainer.models import decoder_model

    hollow = partition.wanted(config)
    if settings.init_from is not None:
        model = decoder_model.from_folder(
            settings.init_from, _extension(settings), dropout=settings.dropout, hollow=hollow
        )
        if parts.tokenizer is not None:
            check_tokenizer(parts.tokenizer, settings.init_from, int(model.config.vocab_size))
    else:
        assert settings.size is not None
        tokens = _vocabulary(settings, parts)
        made = shape(settings, tokens)
        model = decoder_model.new(SIZES[settings.size].family, made, config.seed, hollow=hollow)
    model.spared = tuple(settings.no_decay)
    if unused := [p for p in settings.no_decay if not model.matches(p)]:
        raise UsageError(f"model.no_decay: {unused[0]!r} names no parameter of the model")
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def shape(settings: Settings, tokens: int) -> dict[str, Any]:
    """Return the arguments of the library's configuration for a size and a vocabulary."""
    assert settings.size is not None
    size = SIZES[settings.size]
    common = {
        "vocab_size": tokens,
        "max_position_embeddings": settings.context or size.context,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if size.family == "gpt2":
        rest: dict[str, Any] = dict.fromkeys(
            ("resid_pdrop", "embd_pdrop", "attn_pdrop"), settings.dropout or 0.0
        )
    else:
        rest = {
            "intermediate_size": size.mlp,
            "rms_norm_eps": 1e-5,
            "attention_dropout": settings.dropout or 0.0,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": settings.rope_theta or size.rope_theta,
                **(settings.rope_scaling or {}),
            },
        }
    return {**common, **rest, **settings.shape}


def check_tokenizer(tokenizer: Any, folder: str, known: int) -> None:
    """Raise UsageError if a checkpoint's model was trained with another tokenizer than the data's."""
    from pathlib import Path

    from trainer.data_tokenizer import FILE, parse

    fix = f"tokenise the data with the {FILE} of {folder}"
    if tokenizer.get_vocab_size() > known:
        raise UsageError(
            f"the data's tokenizer has {tokenizer.get_vocab_size():,} tokens, but the model in {folder} "
            f"knows {known:,}: {fix}"
        )
    file = Path(folder).expanduser() / FILE
    if not file.exists():
        return
    own, data = (one.get_vocab() for one in (parse(file.read_bytes(), folder), tokenizer))
    for token, number in data.items():
        if own.get(token) != number:
            raise UsageError(
                f"the data's tokenizer is another than that of {folder}: token {token!r} is "
                f"{number} in the data and {own.get(token, 'unknown')} there; {fix}"
            )


def _extension(settings: Settings) -> dict[str, Any]:
    """What of a checkpoint's configuration is to be another: the reach of its positions."""
    given = {
        "max_position_embeddings": settings.context,
        "rope_theta": settings.rope_theta,
        "rope_scaling": settings.rope_scaling,
    }
    return {name: value for name, value in given.items() if value is not None}


def _vocabulary(settings: Settings, parts: Parts) -> int:
    """The tokenizer's size, or the size's own for a plan. UsageError if this is a run."""
    import torch

    if parts.tokenizer is not None:
        return int(parts.tokenizer.get_vocab_size())
    if "vocab_size" in settings.shape:
        return int(settings.shape["vocab_size"])
    if torch.get_default_device().type == "meta":
        assert settings.size is not None
        return SIZES[settings.size].vocabulary
    raise UsageError(
        "the model's vocabulary is its tokenizer's: give tokenizer.name=data (the one that the token "
        "data was made with), a tokenizer.json, or model.shape.vocab_size="
    )
