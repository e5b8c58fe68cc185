"""Sizes and settings of the model, against published parameter counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from schemas.errors import UsageError
from tests.trainer.models.making import a_config, a_tokenizer
from trainer.config import part
from trainer.models import clip
from trainer.models.metaclip2 import SIZES, XLM_V, Settings, build, shape
from trainer.protocols import Parts

PUBLISHED = {
    "s16": 62.26,
    "m16": 102.02,
    "b32": 151.28,
    "b16": 149.62,
    "l14": 427.62,
    "h14": 986.11,
    "bigg14": 2539.57,
}
"""Millions of parameters with OpenAI CLIP's vocabulary, in open_clip's docs/model_profile.csv."""


def count(size: str, tokens: int) -> int:
    with torch.device("meta"):
        model = clip.new(shape(Settings.model_validate({"size": size}), tokens, 2), 0)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("size", PUBLISHED)
def test_counts_are_the_published_ones(size: str) -> None:
    assert round(count(size, 49_408) / 1e6, 2) == PUBLISHED[size]


def test_h14_has_the_papers_parameters() -> None:
    assert round(count("h14", XLM_V) / 1e9, 3) == 1.859


@pytest.mark.parametrize(("size", "width"), [("l14", 1024), ("h14", 1280), ("bigg14", 1664)])
def test_larger_images_add_positions_only(size: str, width: int) -> None:
    added = (378 // 14) ** 2 - (224 // 14) ** 2
    assert count(f"{size}-378", 49_408) - count(size, 49_408) == added * width


def test_heads_are_those_of_the_paper() -> None:
    """Counts do not show heads: width 64 each, but 80 in H/14's image tower and 104 in bigG/14's."""
    for name, size in SIZES.items():
        wide = {"h14": 80, "bigg14": 104, "tiny": 32}.get(name.removesuffix("-378"), 64)
        assert size.vision.width // size.vision.heads == wide
        assert size.text.width // size.text.heads == (32 if name == "tiny" else 64)
    assert SIZES["h14"].activation == "quick_gelu" and SIZES["h14-378"].activation == "gelu"


def test_shape_follows_settings_and_tokenizer() -> None:
    tokenizer = a_tokenizer()
    settings = Settings(size="tiny", image=32, context=9, activation="gelu")
    model = build(settings, a_config(), Parts(tokenizer=tokenizer))
    vision, text = model.config.vision_config, model.config.text_config
    assert (vision.image_size, vision.hidden_act) == (32, "gelu")
    assert (text.max_position_embeddings, text.hidden_act) == (9, "gelu")
    assert (text.vocab_size, text.eos_token_id) == (tokenizer.get_vocab_size(), 2)
    assert model.config._attn_implementation == "sdpa" and model.training
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        settings = Settings(size="tiny", image=32, context=9, gradient_checkpointing=checkpointing)
        model = build(settings, a_config(), Parts(tokenizer=a_tokenizer()))
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(2, 3, 32, 32, generator=generator)
        out = model(pixels, torch.tensor([[0, 5, 2, 1], [0, 6, 7, 2]]))
        (out["image"] * out["text"]).sum().backward()
        assert model.text_model.encoder.gradient_checkpointing is checkpointing
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert len(found[0]) == len(found[1]) > 50
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name])


def test_a_plan_needs_no_tokenizer() -> None:
    with torch.device("meta"):
        model = build(Settings(size="tiny"), a_config(), Parts())
        assert model.config.text_config.vocab_size == XLM_V
    with pytest.raises(UsageError, match="tokenizer=train"):
        build(Settings(size="tiny"), a_config(), Parts())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of model.size= and model.init_from="),
        ({"size": "h14", "init_from": "x"}, "exactly one of"),
        ({"init_from": "x", "context": 32}, "model.context=32: the checkpoint decides it"),
        ({"size": "h14", "image": 225}, "model.image=225: must be a multiple of the patch, 14"),
        ({"size": "h15"}, "size='h15'"),
        ({"size": "tiny", "contxt": 32}, "did you mean context"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        part("model", {"name": "metaclip2", **settings})
