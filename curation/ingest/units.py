"""Units of reading, whatever they hold: what is said of them, and which share a unit of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar


class ReadingUnit(Protocol):
    """A part of an input: its path, how it is read in words, and the work in bytes."""

    @property
    def path(self) -> str:
        """Where the input lies."""
        ...

    @property
    def how(self) -> str:
        """How it is read, in words."""
        ...

    @property
    def size(self) -> int:
        """The work in bytes."""
        ...

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        ...


U = TypeVar("U", bound=ReadingUnit)


def notes(units: Sequence[ReadingUnit]) -> list[str]:
    """One line for each way of reading: the format, the columns, for which input."""
    paths: dict[str, dict[str, None]] = {}
    for unit in units:
        paths.setdefault(unit.how, {})[unit.path] = None
    return [
        f"{how}: {next(iter(found))}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        for how, found in paths.items()
    ]


def grouped(units: Sequence[U], limit: int) -> Iterator[list[U]]:
    """Runs of consecutive units of at most ``limit`` bytes: small inputs share a unit of work."""
    group: list[U] = []
    total = 0
    for unit in units:
        if group and total + unit.size > limit:
            yield group
            group, total = [], 0
        group.append(unit)
        total += unit.size
    if group:
        yield group
