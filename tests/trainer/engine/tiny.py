"""Runs of the tiny model: its parts by name, and settings."""

from __future__ import annotations

from typing import Any, cast

from trainer import config
from trainer.config import RunConfig

HERE = "tests.trainer.engine"


def register() -> None:
    """Make the tiny parts known by name, in this process."""
    parts = cast("dict[str, dict[str, str]]", config.PARTS)
    parts["model"]["tiny"] = f"{HERE}.tiny_model"
    parts["data"]["tiny"] = f"{HERE}.tiny_source"
    parts["objective"]["tiny"] = f"{HERE}.tiny_contrastive"
    parts["objective"]["tiny_additive"] = f"{HERE}.tiny_additive"
    parts["objective"]["tiny_faulty"] = f"{HERE}.tiny_faulty"


def run_config(output: Any, **changes: Any) -> RunConfig:
    """Settings of a run of the tiny model."""
    tree: dict[str, Any] = {
        "recipe": "tiny",
        "output": str(output),
        "model": {"name": "tiny"},
        "data": {"name": "tiny"},
        "objective": {"name": "tiny"},
        "length": {"steps": 5},
        "batch": {"size": 16},
        "optimizer": {"lr": 1e-2},
        "log_every": 1,
    }
    return RunConfig.model_validate({**tree, **changes})
