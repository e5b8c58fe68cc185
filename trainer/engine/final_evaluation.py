"""The evaluation at the end of a run, as ``evaluate:`` of its settings names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import RunConfig


def evaluate(config: RunConfig, output: Path, *, anew: bool) -> list[str]:
    """Score the run's last checkpoint as ``evaluate:`` of its settings says, into OUTPUT/eval/; returns
    the lines for people.

    ``anew``: also if there is a result already.
    """
    from trainer.evaluation import language, registry

    name, settings = settings_of(config)
    if anew or not (output / "eval" / f"{name}.json").exists():
        result = registry.evaluate(language.load(str(output)), name, settings)
        registry.write(result, str(output))
        return registry.table(result)
    return []


def settings_of(config: RunConfig) -> tuple[str, dict[str, Any]]:
    """Name and settings of ``evaluate:``. UsageError if there is no such evaluation or setting."""
    from trainer.evaluation import registry

    settings = dict(config.evaluate or {})
    name = str(settings.pop("name", None))
    registry.named(name, settings)
    return name, settings
