"""Settings of both commands: YAML file plus ``key=value`` overrides, checked against a pydantic model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """``["p=0.06", "columns.text=TEXT"]`` -> nested dict; values are read as YAML scalars or lists."""
    tree: dict[str, Any] = {}
    for word in words:
        path, equals, raw = word.partition("=")
        if not equals or not path:
            raise UsageError(f"{word!r}: settings are given as key=value, for example p=0.06")
        try:
            value = yaml.safe_load(raw) if raw else ""
        except yaml.YAMLError:
            value = raw
        if not isinstance(value, bool | int | float | list | type(None)):
            value = raw  # text stays as typed: no dates, no mappings
        _set(tree, path.split("."), value, word)
    return tree


def _set(tree: dict[str, Any], path: list[str], value: Any, word: str) -> None:
    for name in path[:-1]:
        node = tree.setdefault(name, {})
        if not isinstance(node, dict):
            raise UsageError(f"{word!r}: {name} already has a value")
        tree = node
    if path[-1] in tree:
        raise UsageError(f"{word!r}: {'.'.join(path)} is given twice")
    tree[path[-1]] = value


def load_file(path: str) -> dict[str, Any]:
    """Settings of a YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = yaml.safe_load(text) or {}
    except FileNotFoundError:
        raise UsageError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: not readable as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"--config {path}: must hold a mapping of settings")
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``base``, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def _known(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, info in model.model_fields.items():
        names.append(prefix + name)
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names.extend(_known(inner, f"{prefix}{name}."))
    return names


def build(
    model: type[Model],
    tree: Mapping[str, Any],
    recipe: str,
    see: str = "dataflows list",
    hint: str | None = None,
) -> Model:
    """Validate; every fault is named with the value, and an unknown key with the nearest known one.

    The message ends with where to look: the command `see` with the recipe's name, or ``hint``.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        where = hint or f"see `{see} {recipe}`"
        raise UsageError(f"{_explain(model, error, recipe)} ({where})") from None


def _explain(model: type[BaseModel], error: ValidationError, recipe: str) -> str:
    lines = []
    for fault in error.errors(include_url=False):
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, _known(model), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"{name}: unknown setting of {recipe}{hint}")
        elif fault["type"] == "missing":
            lines.append(f"{name}: must be given, as in {name}=...")
        elif fault["type"] == "value_error":
            lines.append(str(fault["ctx"]["error"]))
        elif fault["type"] == "model_type":
            inner = [known for known in _known(model) if known.startswith(f"{name}.")]
            lines.append(
                f"{name}={fault['input']!r}: {name} is a group of settings; give {', '.join(inner)}"
            )
        else:
            lines.append(f"{name}={fault['input']!r}: {fault['msg']}")
    return "; ".join(lines)
