"""Settings of both commands: YAML file plus ``key=value`` overrides, checked against a pydantic model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


class Typed(list[Any]):
    """A list of the command line, and the word as it was typed: a setting of text takes that."""

    def __init__(self, values: Iterable[Any], raw: str) -> None:
        super().__init__(values)
        self.raw = raw


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """``["p=0.06", "columns.text=TEXT"]`` -> nested dict; values are read as YAML scalars or lists.

    A value in quotes is the text in them; a list is a :class:`Typed`, which ``build`` reads as text
    where the setting is text, as in ``eos=[SEP]``.
    """
    tree: dict[str, Any] = {}
    for word in words:
        path, equals, raw = word.partition("=")
        if not equals or not path:
            raise UsageError(f"{word!r}: settings are given as key=value, for example p=0.06")
        try:
            value = yaml.safe_load(raw) if raw else ""
        except yaml.YAMLError:
            value = raw
        if isinstance(value, list):
            value = Typed(value, raw)
        elif isinstance(value, str) and raw[:1] in ("'", '"') and raw[-1:] == raw[:1]:
            pass  # the text in the quotes
        elif not isinstance(value, bool | int | float | type(None)):
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
    tree = dict(tree)
    try:
        try:
            return model.model_validate(tree)
        except ValidationError as error:
            if not (plain := _as_typed(tree, error)):
                raise
            return model.model_validate(plain)
    except ValidationError as error:
        where = hint or f"see `{see} {recipe}`"
        raise UsageError(f"{_explain(model, error, recipe)} ({where})") from None


def _as_typed(tree: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """The tree with those lists as text that text was expected of; {} if there is none such."""
    found: dict[str, Any] = {}
    for fault in error.errors(include_url=False):
        if fault["type"] == "string_type" and isinstance(fault["input"], Typed):
            over: Any = fault["input"].raw
            for part in reversed(_place(tree, fault["loc"])):
                over = {part: over}
            found = merge(found or tree, over)
    return found


def _place(tree: Any, loc: Sequence[str | int]) -> list[str]:
    """The keys of a fault's place that the tree has; pydantic adds the branches of unions."""
    found = []
    for part in loc:
        if isinstance(tree, Mapping) and part in tree:
            found.append(str(part))
            tree = tree[part]
    return found


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
            lines.append(_group_expected(model, fault["loc"], fault["input"]))
        else:
            lines.append(f"{name}={fault['input']!r}: {fault['msg']}")
    return "; ".join(dict.fromkeys(lines))


def _group_expected(model: type[BaseModel], loc: Sequence[str | int], value: object) -> str:
    """What to give where a group of settings is expected, or a list of them."""
    name = ".".join(str(part) for part in loc)
    inner = _model_at(model, loc)
    if isinstance(loc[-1], int) and inner is not None:
        parent = name.rpartition(".")[0]
        keys = [key for key, info in inner.model_fields.items() if info.is_required()]
        keys = keys or list(inner.model_fields)
        example = ", ".join(f"{key}: ..." for key in keys)
        return (
            f"{name}={value!r}: each of {parent} is a group of settings "
            f"({', '.join(inner.model_fields)}); give {parent}='[{{{example}}}, ...]'"
        )
    known = _known(inner, f"{name}.") if inner is not None else []
    return f"{name}={value!r}: {name} is a group of settings; give {', '.join(known)}"


def _model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The group of settings at a place, in lists, mappings and unions too."""
    here: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str) and here is not None and part in here.model_fields:
            here = _group_in(here.model_fields[part].annotation)
    return here


def _group_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _group_in(a))), None)
