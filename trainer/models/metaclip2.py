"""CLIP as MetaCLIP 2 trains it (arXiv:2507.22062, section 3.4): sizes, settings, building.

Sizes follow the released configurations, with the vocabulary of XLM-V where no tokenizer is given.
Parameter counts were checked for all of them but ``tiny``: with OpenAI CLIP's vocabulary (49,408)
against open_clip's published profile, to its two decimals (the 378 px sizes through their 224 px
ones, plus the added positions); ViT-H/14 with XLM-V's also against the paper's 1.859 B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import UsageError

if TYPE_CHECKING:
    from trainer.config import RunConfig
    from trainer.protocols import Parts

XLM_V = 901_629
"""Tokens of facebook/xlm-v-base."""

Activation = Literal["quick_gelu", "gelu"]
SizeName = Literal[
    "tiny", "s16", "m16", "b32", "b16", "l14", "l14-378", "h14", "h14-378", "bigg14", "bigg14-378"
]


@dataclass(frozen=True)
class Tower:
    """A transformer: its layers, width, attention heads and the width of its MLPs."""

    layers: int
    width: int
    heads: int
    mlp: int


@dataclass(frozen=True)
class Size:
    """Two towers and the space they share. ``image`` and ``patch`` in pixels, ``context`` in tokens."""

    vision: Tower
    text: Tower
    embed: int
    patch: int
    image: int = 224
    context: int = 77
    activation: Activation = "quick_gelu"


_TEXT_512 = Tower(12, 512, 8, 2048)
_VISION_B = Tower(12, 768, 12, 3072)
_VISION_L = Tower(24, 1024, 16, 4096)
_TEXT_L = Tower(12, 768, 12, 3072)
_VISION_H = Tower(32, 1280, 16, 5120)
_TEXT_H = Tower(24, 1024, 16, 4096)
_VISION_G = Tower(48, 1664, 16, 8192)
_TEXT_G = Tower(32, 1280, 20, 5120)

SIZES: dict[SizeName, Size] = {
    "tiny": Size(Tower(4, 192, 6, 768), Tower(2, 128, 4, 512), 128, 16, image=64, context=24),
    "s16": Size(Tower(12, 384, 6, 1536), Tower(12, 384, 6, 1536), 384, 16),
    "m16": Size(Tower(12, 512, 8, 2048), _TEXT_512, 512, 16),
    "b32": Size(_VISION_B, _TEXT_512, 512, 32),
    "b16": Size(_VISION_B, _TEXT_512, 512, 16),
    "l14": Size(_VISION_L, _TEXT_L, 768, 14),
    "l14-378": Size(_VISION_L, _TEXT_L, 768, 14, image=378),
    "h14": Size(_VISION_H, _TEXT_H, 1024, 14),
    "h14-378": Size(_VISION_H, _TEXT_H, 1024, 14, image=378, activation="gelu"),
    "bigg14": Size(_VISION_G, _TEXT_G, 1280, 14, activation="gelu"),
    "bigg14-378": Size(_VISION_G, _TEXT_G, 1280, 14, image=378, activation="gelu"),
}
"""All sizes. Activations are those of the released weights of each; the smaller ones, released as
distilled models, have the one that the paper trains with from scratch."""


class Settings(BaseModel):
    """Either ``size``, from scratch, or ``init_from``, which says everything about the shape."""

    model_config = ConfigDict(extra="forbid")

    size: SizeName | None = None
    init_from: str | None = Field(
        None, description="folder of a CLIP or MetaCLIP 2 checkpoint of `transformers`"
    )
    image: int | None = Field(None, ge=8, description="pixels of a side (default: the size's)")
    context: int | None = Field(None, ge=3, description="tokens of a text (default: the size's)")
    activation: Activation | None = Field(None, description="default: the size's")
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _one(self) -> Settings:
        if (self.size is None) == (self.init_from is None):
            raise ValueError("give exactly one of model.size= and model.init_from=")
        if self.init_from is not None:
            for name in ("image", "context", "activation"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"model.{name}={getattr(self, name)}: the checkpoint decides it; leave it out"
                    )
        if self.size is not None and self.image and self.image % SIZES[self.size].patch:
            raise ValueError(
                f"model.image={self.image}: must be a multiple of the patch, "
                f"{SIZES[self.size].patch} for size {self.size}"
            )
        return self


def build(settings: Settings, config: RunConfig, parts: Parts) -> Any:
    """Return the model (`trainer.models.clip.MetaClip2Model`), fp32, in training mode.

    New weights are a function of ``config.seed`` and parameter names: the same on every rank. On the
    meta device (a plan) no tokenizer is needed: the vocabulary is then XLM-V's. UsageError without a
    tokenizer, or if it has more tokens than a checkpoint's model; InputError if the checkpoint cannot
    be read.
    """
    from trainer.models import clip
    from trainer.tokenizer import frame

    if settings.init_from is not None:
        model = clip.from_folder(settings.init_from)
        if parts.tokenizer is not None:
            _fits(parts.tokenizer, model, settings.init_from)
            model.pool_at(frame(parts.tokenizer).end)
    elif parts.tokenizer is not None:
        tokens, end = parts.tokenizer.get_vocab_size(), frame(parts.tokenizer).end
        model = clip.new(shape(settings, tokens, end), config.seed)
    else:
        model = clip.new(shape(settings, _planned(config), 2), config.seed)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _fits(tokenizer: Any, model: Any, folder: str) -> None:
    tokens, known = tokenizer.get_vocab_size(), model.config.text_config.vocab_size
    if tokens > known:
        raise UsageError(
            f"the tokenizer has {tokens} tokens, but the model in {folder} knows {known}: leave "
            "tokenizer out to use the folder's own"
        )


def _planned(config: RunConfig) -> int:
    """The vocabulary of a model that is only planned. UsageError if this is a run."""
    import torch

    from trainer import tokenizer

    if torch.get_default_device().type == "meta":
        return XLM_V
    tokenizer.check(config)  # names what to give
    raise UsageError("the model's vocabulary is its tokenizer's: build the tokenizer first")


def shape(settings: Settings, tokens: int, end: int) -> dict[str, Any]:
    """Return the arguments of `transformers.MetaClip2Config` for a size, a vocabulary and its end token."""
    assert settings.size is not None
    size = SIZES[settings.size]
    activation = settings.activation or size.activation

    def tower(part: Tower) -> dict[str, Any]:
        return {
            "hidden_size": part.width,
            "intermediate_size": part.mlp,
            "num_hidden_layers": part.layers,
            "num_attention_heads": part.heads,
            "hidden_act": activation,
            "projection_dim": size.embed,
        }

    return {
        "projection_dim": size.embed,
        "vision_config": {
            **tower(size.vision),
            "image_size": settings.image or size.image,
            "patch_size": size.patch,
        },
        "text_config": {
            **tower(size.text),
            "vocab_size": tokens,
            "max_position_embeddings": settings.context or size.context,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": end,
        },
    }
