"""What is run, and with which settings: a recipe's own model and data in fp32, made small in time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.settings import build, merge
from trainer.config import RunConfig, part

BATCH = 8
"""Samples of a global batch, unless the user gives them: divides over 1, 2, 4 and 8 ranks."""

PROBES: Mapping[str, Mapping[str, Any]] = {
    "sgd": {
        "length": {"steps": 2},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        "schedule": {"name": "constant"},
    },
    "adamw": {"length": {"steps": 20}, "schedule": {"name": "linear", "warmup": 20}},
}
"""``sgd``: losses, gradients and updates are compared. ``adamw``: losses of 20 steps of the recipe's
AdamW while it warms up; its updates say little, for a gradient of rounding errors moves a weight as far
as any other."""


@dataclass(frozen=True)
class Variant:
    """One way to run the same: ``changes`` to the settings, on ``ranks`` processes. ``unpacked``: each
    document of a sequence alone, without DeepSpeed."""

    name: str
    ranks: int
    changes: Mapping[str, Any]
    unpacked: bool = False


def probed(config: RunConfig, probe: str, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """The settings of a probe: fp32, no clipping, no dropout, nothing read ahead."""
    tree = config.model_dump(exclude_none=True)
    tree.pop("length", None)
    tree.pop("evaluate", None)
    plain: dict[str, Any] = {"precision": "fp32", "clip": None, "loaders": 0, "zero": 0}
    if "dropout" in part("model", config.model)[0].Settings.model_fields:
        plain["model"] = {"dropout": 0.0}
    optimizer = PROBES[probe].get("optimizer")
    if optimizer:
        tree.pop("optimizer", None)
    tree.pop("schedule", None)
    return build(
        RunConfig, merge(merge(merge(tree, plain), PROBES[probe]), changes or {}), "parity"
    )


def variants(config: RunConfig, ranks: Sequence[int], stages: Sequence[int]) -> Iterator[Variant]:
    """All ways that the recipe can be run, each by its name."""
    model, objective = (
        part(kind, getattr(config, kind))[0].Settings.model_fields
        for kind in ("model", "objective")
    )
    for count in ranks:
        for stage in stages:
            name = f"{count} rank{'s' if count > 1 else ''}, ZeRO {stage}"
            yield Variant(name, count, {"zero": stage})
    yield Variant("accumulation, 1 sample a pass", 1, {"batch": {"micro": 1}, "zero": 1})
    if "gradient_checkpointing" in model:
        turned = not config.model.get("gradient_checkpointing", False)
        name = f"activation checkpointing {'on' if turned else 'off'}"
        yield Variant(name, 1, {"model": {"gradient_checkpointing": turned}})
    if "rows" in objective:
        yield Variant("logits of 7 tokens at once", 1, {"objective": {"rows": 7}})
    if shutil.which(os.environ.get("CXX") or "c++"):  # as torch.compile looks for it
        yield Variant("compiled", 1, {"compile": True})
    if config.data.get("name") == "tokens":
        yield Variant("documents not packed", 1, {}, unpacked=True)
