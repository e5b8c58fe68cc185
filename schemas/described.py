"""Settings as lists for people: of a pydantic model each key, what it takes, and what it is."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (key, type and default, description) of each setting, nested ones with dotted keys."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if nested := _group(kind):
            yield from settings(nested, f"{prefix}{name}.")
            continue
        if info.is_required():
            default = "required"
        else:
            value = info.get_default(call_default_factory=True, validated_data={})
            default = "optional" if value is None else f"= {_text(value)}"
        yield f"{prefix}{name}", f"{_type(kind)} {default}", info.description or ""


def _group(kind: Any) -> type[BaseModel] | None:
    """The group of settings that a field is, perhaps one that may be left out."""
    found = [one for one in (kind, *get_args(kind)) if isinstance(one, type)]
    groups = [one for one in found if issubclass(one, BaseModel)]
    alone = get_origin(kind) in (None, Union, types.UnionType)
    return groups[0] if groups and alone else None


def _type(kind: Any) -> str:
    """The values that a setting takes, as a user would write them."""
    if kind is type(None):
        return ""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inner[0])
    if origin is dict:
        return "{name: value, ...}"
    if origin is Literal:
        return "|".join(map(_text, inner))
    if origin in (Union, types.UnionType):
        return "|".join(dict.fromkeys(filter(None, map(_type, inner))))
    if origin in (list, tuple) and inner:
        return f"[{_type(inner[0])}, ...]"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"{{{', '.join(kind.model_fields)}}}"
    return {str: "text", int: "integer", float: "number", bool: "true|false"}.get(kind, str(kind))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return lines of equally wide columns; the last one is as wide as it is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)] + [0]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
