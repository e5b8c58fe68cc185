"""The recipes, against the paper's table (arXiv:2507.22062, appendix B, and its configuration)."""

from __future__ import annotations

from trainer import tokenizer
from trainer.config import RunConfig, load, part, recipes

GIVEN = ["data.path=matched", "output=run"]


def recipe(name: str, *words: str) -> RunConfig:
    return load(name, [*GIVEN, *words])


def test_the_papers_numbers() -> None:
    config = recipe("metaclip2", "tokenizer=xlm-v/tokenizer.json")
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.eps) == (4e-4, (0.9, 0.95), 1e-6)
    assert optimizer.weight_decay == 0.1 and optimizer.name == "adamw"
    assert (config.schedule.name, config.schedule.warmup, config.schedule.final) == (
        "cosine",
        2000,
        0.0,
    )
    assert config.batch.size == 196 * 384 == 75_264
    assert config.length.samples == 32 * 920_000_000
    assert config.length.samples // config.batch.size == 391_156
    assert config.precision == "bf16"
    assert config.model == {"name": "metaclip2", "size": "h14", "gradient_checkpointing": True}
    assert config.data["draw"] == "image" and config.data["crop"] == [0.9, 1.0]
    assert tokenizer.check(config) == "xlm-v/tokenizer.json"


def test_tiny_trains_its_own_tokenizer() -> None:
    config = recipe("metaclip2-tiny")
    assert tokenizer.check(config) == tokenizer.Settings(vocabulary=8192)
    assert tokenizer.check(recipe("metaclip2-tiny", "tokenizer=a.json")) == "a.json"
    _, settings = part("model", config.model)
    assert settings.size == "tiny"  # type: ignore[attr-defined]


def test_first_lines_say_what_is_trained() -> None:
    found = recipes()
    assert "ViT-H/14" in found["metaclip2"] and "tiny" in found["metaclip2-tiny"]
