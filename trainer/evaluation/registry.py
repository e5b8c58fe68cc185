"""The named evaluations: settings, one call that loads and scores, the file and the table.

A module here has ``Settings`` (pydantic) and ``evaluate(loaded, settings) -> dict``. The dict has
``headline`` {metric, mean, low, high, n, chance} and ``languages`` or ``rows`` {name: scores}, where a
score is a number or an estimate {mean, low, high, n}, perhaps one level down. A score is a share of 1,
but for those whose metric or name is in the list ``amounts``. A chance of None: the metric has none; no
low and high: no interval is known. A module may have ``check(result)``, which
raises CheckFailed for what makes its numbers worthless, ``foresee(settings, data)``, which refuses before
a run what its data could not give at the end, and ``LANGUAGE = True`` if it is of language
models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from schemas.command_line import suggest
from schemas.errors import CheckFailed, UsageError
from schemas.settings import build
from schemas.storage import storage
from trainer.evaluation.language import LanguageModel

if TYPE_CHECKING:
    from trainer.evaluation.loading import Loaded

EVALUATIONS: Mapping[str, str] = {
    "pool": "trainer.evaluation.pool",
    "retrieval": "trainer.evaluation.pairs",
    "xm3600": "trainer.evaluation.xm3600",
    "babel_imagenet": "trainer.evaluation.babel_imagenet",
    "cvqa": "trainer.evaluation.cvqa",
    "bits": "trainer.evaluation.bits",
    "lambada": "trainer.evaluation.lambada",
    "babi": "trainer.evaluation.babi",
    "perplexity": "trainer.evaluation.perplexity",
    "harness": "trainer.evaluation.harness",
}
"""Modules by name."""

INTERVAL = "95 %, Wilson's score interval at Kish's effective number of images"


def named(name: str, settings: Mapping[str, Any]) -> tuple[ModuleType, BaseModel]:
    """Return an evaluation and its checked settings. UsageError for an unknown name or setting."""
    if name not in EVALUATIONS:
        raise UsageError(f"{name}: unknown evaluation.{suggest(name, EVALUATIONS)}")
    module = import_module(EVALUATIONS[name])
    return module, build(module.Settings, settings, name, "trainer eval --list")


def documented(name: str | None = None) -> list[str]:
    """Lines that list the evaluations (or one) with their settings and defaults."""
    if name is not None and name not in EVALUATIONS:
        raise UsageError(f"{name}: unknown evaluation.{suggest(name, EVALUATIONS)}")
    lines = []
    for key in EVALUATIONS if name is None else (name,):
        module = import_module(EVALUATIONS[key])
        first = (module.__doc__ or "").splitlines()[0].removeprefix(f"Evaluation `{key}`: ")
        lines.append(f"{key}: {first}")
        for field, info in module.Settings.model_fields.items():
            default = "" if info.is_required() else f" (default: {info.default})"
            shown = "" if info.default is None else default
            lines.append(f"  {field:12} {info.description}{shown}")
    return lines


def evaluate(
    loaded: Loaded | LanguageModel, name: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Run a named evaluation on a loaded model; the result is what ``eval/NAME.json`` holds.

    UsageError for an evaluation of models of another kind.
    """
    module, checked = named(name, settings)
    language = isinstance(loaded, LanguageModel)
    if language != getattr(module, "LANGUAGE", False):
        fitting = [
            key
            for key, path in EVALUATIONS.items()
            if getattr(import_module(path), "LANGUAGE", False) == language
        ]
        kind = "a language model" if language else "an image-text model"
        raise UsageError(f"{name}: not an evaluation of {kind}; give one of {', '.join(fitting)}")
    result = module.evaluate(loaded, checked)
    head = {
        "evaluation": name,
        "settings": checked.model_dump(),
        "model": loaded.facts,
        "interval": INTERVAL,
    }
    return {**head, **result}


def rows(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a result's scores by language, task or model."""
    found: Mapping[str, Any] = result["rows"] if "rows" in result else result["languages"]
    return found


def write(result: Mapping[str, Any], place: str) -> str:
    """Write a result as ``PLACE/eval/NAME.json`` (over an older one); return the path."""
    root, key = storage(place), f"eval/{result['evaluation']}.json"
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
    root.replace(key, text.encode() + b"\n")
    return root.path(key)


def above_chance(result: Mapping[str, Any]) -> None:
    """Raise CheckFailed unless the headline's whole interval lies above chance, and if the
    evaluation's own check fails."""
    head = result["headline"]
    if head["chance"] is None:
        raise UsageError(
            f"--above-chance: {head['metric']} of {result['evaluation']} has no chance level"
        )
    if head["low"] <= head["chance"]:
        raise CheckFailed(
            f"{head['metric']}: {_shown(head)} is not above chance, {head['chance']:.4f}; "
            "train longer or on more data"
        )
    module = import_module(EVALUATIONS[result["evaluation"]])
    if check := getattr(module, "check", None):
        check(result)


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines for people: the headline, then one line a language, task or model."""
    head = result["headline"]
    chance = "" if head["chance"] is None else f", chance {head['chance']:.4f}"
    lines = [f"{head['metric']}: {_shown(head)}{chance}", ""]
    cells = {name: dict(flat(scores)) for name, scores in rows(result).items()}
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    lines += _aligned(
        [["", *columns]]
        + [
            [name, *(_shown(row[column]) if column in row else "" for column in columns)]
            for name, row in cells.items()
        ]
    )
    lines += [f"  {note}" for note in result.get("notes") or ()]
    if other := result.get("against"):
        lines += ["", f"accuracy minus that of {other['place']}, paired by class:"]
        lines += _aligned([[name, _shown(one)] for name, one in other["languages"].items()])
    return lines


def flat(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield numbers and estimates of one language, with their names; lists are for the file only."""
    for name, value in scores.items():
        if isinstance(value, Mapping) and "mean" not in value:
            yield from flat(value, f"{prefix}{name} ")
        elif isinstance(value, Mapping | int | float):
            yield prefix + name, value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        if "low" not in value:
            return f"{value['mean']:.4f}"
        return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
