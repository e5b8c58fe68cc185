"""Two models by the same evaluation: the difference of their accuracies, paired by class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.errors import InputError, UsageError
from schemas.storage import storage
from trainer.evaluation.intervals import paired_bootstrap


def read(place: str, name: str) -> dict[str, Any]:
    """Return the result of an evaluation that was written to a place: PLACE/eval/NAME.json."""
    root, key = storage(place), f"eval/{name}.json"
    try:
        found = json.loads(root.read_bytes(key))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"--against {place}: no {key} there; run `trainer eval {place} {name}` first"
        ) from None
    except ValueError as error:
        raise InputError(f"{root.path(key)} cannot be read: {error}; evaluate it again") from None
    return dict(found)


def check(name: str, settings: Mapping[str, Any], other: Mapping[str, Any], place: str) -> None:
    """Raise UsageError unless a result of these settings can be paired with the other by class."""
    if "classes" not in other:
        raise UsageError(f"--against: {name} has no classes to pair by")
    asked = {key: value for key, value in settings.items() if key != "languages"}
    for key, value in asked.items():
        if value != other["settings"].get(key):
            raise UsageError(
                f"--against {place}: it was asked with {key}={other['settings'].get(key)}, and this "
                f"with {key}={value}; ask both the same"
            )


def against(result: Mapping[str, Any], other: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return {place, model, languages: {language: estimate}}: this accuracy minus the other's.

    The mean over the classes that count, with a bootstrap interval over classes, in the languages that
    both were asked in. Errors as `check`.
    """
    check(result["evaluation"], result["settings"], other, place)
    counted = np.ones(len(result["classes"]), bool)
    if result["settings"]["classes"] == "tail":
        counted = np.array(result["tail"])
    found = {}
    for language in result["languages"]:
        if language not in other["languages"]:
            continue
        a, b = (
            np.array(r["languages"][language]["per_class"], np.float64)[counted]
            for r in (result, other)
        )
        both = ~np.isnan(a) & ~np.isnan(b)
        found[language] = paired_bootstrap(a[both], b[both]).to_json()
    return {"place": place, "model": other["model"], "languages": found}
