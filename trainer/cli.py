"""The `trainer` command: finds its sub-commands in `trainer/commands`."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence

from schemas import command_line
from trainer import commands

DESCRIPTION = (
    "Trains recipes on committed datasets, and evaluates, exports and reports what they learned."
)


def command_modules() -> dict[str, str]:
    """{command: module path}."""
    found = sorted(info.name for info in pkgutil.iter_modules(commands.__path__))
    return {name: f"{commands.__name__}.{name}" for name in found if not name.startswith("_")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `schemas.command_line`)."""
    return command_line.main("trainer", DESCRIPTION, command_modules(), argv)
