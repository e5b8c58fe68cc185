"""The language-model recipes, against the papers' tables (arXiv:2504.00927, arXiv:2502.08524)."""

from __future__ import annotations

import pytest

from trainer.config import RunConfig, load, part, recipes
from trainer.engine.schedule import learning_rate

GIVEN = ["data.path=tokens", "output=run"]


def recipe(name: str, *words: str) -> RunConfig:
    return load(name, [*GIVEN, *words])


def tokens(config: RunConfig) -> int:
    return config.batch.size * int(config.data["sequence_length"])


def test_multi_token_attentions_baseline() -> None:
    config = recipe("llama")
    assert config.model == {"name": "decoder", "size": "880m"}
    assert tokens(config) == 262_144 and config.length.steps == 400_000
    assert tokens(config) * config.length.steps == pytest.approx(104.9e9, rel=1e-3)
    assert (config.optimizer.lr, config.optimizer.betas[1]) == (1.5e-4, 0.98)
    assert config.optimizer.weight_decay == 0.05 and config.precision == "bf16"
    assert (config.schedule.name, config.schedule.warmup) == ("linear", 375)
    assert config.data["document_mask"] is False
    large = recipe("llama", "model.size=1b", "batch.size=256", "length.steps=200000")
    assert tokens(large) == 524_288


def test_cocomixs_baseline() -> None:
    config = recipe("gpt2")
    _, settings = part("model", config.model)
    assert (settings.size, settings.dropout) == ("gpt2-69m", 0.1)  # type: ignore[attr-defined]
    assert tokens(config) == 524_288 and config.length.steps == 40_000
    steps, lr = 40_000, config.optimizer.lr
    rates = [learning_rate(config.schedule, lr, step, steps) for step in (130, steps - 1)]
    assert rates == pytest.approx([6e-4, 6e-5], rel=1e-2)


def test_the_tiny_ones_tokenizer_is_the_datas() -> None:
    config = recipe("llama-tiny")
    assert config.tokenizer == {"name": "data"} and config.evaluate == {"name": "bits"}
    assert "small Llama" in recipes()["llama-tiny"]
