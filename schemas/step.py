"""What a curation step returns: rows, their ledger, dead letters and statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from schemas.ledger import Ledger


@dataclass
class Outcome:
    """Result of one step on one table.

    ``dead`` holds DEAD_LETTERS rows; ``stats`` is a nested dict whose numeric leaves add up over
    tables; ``side`` holds further tables by name.
    """

    table: pa.Table
    ledger: Ledger
    dead: pa.Table | None = None
    stats: dict[str, Any] = field(default_factory=dict)
    side: dict[str, pa.Table] = field(default_factory=dict)


def merge_stats(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Add two nested dicts leaf by leaf; a key on one side only is taken over.

    Leaves that are not numbers must agree. Raises ValueError naming the key otherwise.
    """
    merged: dict[str, Any] = dict(a)
    for key, value in b.items():
        if key not in merged:
            merged[key] = value
        elif isinstance(value, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = merge_stats(merged[key], value)
        elif _is_number(value) and _is_number(merged[key]):
            merged[key] = merged[key] + value
        elif merged[key] != value:
            raise ValueError(f"statistics disagree at {key!r}: {merged[key]!r} and {value!r}")
    return merged


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
