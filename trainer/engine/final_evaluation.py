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
    """Name and settings of ``evaluate:``. UsageError if there is no such evaluation or setting, or if it
    has nothing to score."""
    from trainer.evaluation import registry

    settings = dict(config.evaluate or {})
    name = str(settings.pop("name", None))
    module, checked = registry.named(name, settings)
    if foresee := getattr(module, "foresee", None):
        foresee(checked, data_of(config))
    return name, settings


def data_of(config: RunConfig) -> dict[str, Any]:
    """Return where a run's data is, as its record has it: ``location``, or the parts of a ``mix``."""
    parts = config.data.get("mix") or ()
    mix = [str(one.get("path")) for one in parts if isinstance(one, dict)]
    return {"location": config.data.get("path"), "mix": mix}
