"""`dataflows list`: the recipes, and the settings of one of them."""

from __future__ import annotations

import argparse
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel

HELP = "list the recipes, or the settings of one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="show this recipe's settings")


def run(args: argparse.Namespace) -> int:
    """Print one line a recipe, or one line a setting of the named recipe."""
    from dataflows.pipelines import RECIPES, recipe

    if not args.recipe:
        _print_columns(list(RECIPES.items()))
        return 0
    module = recipe(args.recipe)
    print(f"dataflows run {args.recipe} key=value ...: {RECIPES[args.recipe]}\n")
    _print_columns(list(settings(module.Config)))
    return 0


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, type and default, description) of each setting, nested ones with dotted keys."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and hasattr(kind, "model_fields"):
            yield from settings(kind, f"{prefix}{name}.")
            continue
        if info.is_required():
            default = "required"
        else:
            value = info.get_default(call_default_factory=True, validated_data={})
            default = "optional" if value is None else f"= {_text(value)}"
        yield f"{prefix}{name}", f"{_type(kind)} {default}", info.description or ""


def _type(kind: Any) -> str:
    """The values that a setting takes, as a user would write them."""
    if kind is type(None):
        return ""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "|".join(map(_text, inner))
    if origin in (Union, types.UnionType):
        return "|".join(dict.fromkeys(filter(None, map(_type, inner))))
    if origin in (list, tuple) and inner:
        return f"[{_type(inner[0])}, ...]"
    return {str: "text", int: "integer", float: "number", bool: "true|false"}.get(kind, str(kind))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_columns(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)] + [0]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)))
