"""The `dataflows` command: finds its sub-commands in `dataflows/commands`."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence

from dataflows import commands
from schemas import command_line

DESCRIPTION = "Turns raw web data into committed datasets."


def command_modules() -> dict[str, str]:
    """{command: module path}; an underscore in a module's name is a dash in the command's."""
    found = (info.name for info in pkgutil.iter_modules(commands.__path__))
    return {
        name.replace("_", "-"): f"{commands.__name__}.{name}"
        for name in sorted(found)
        if not name.startswith("_")
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `schemas.command_line`)."""
    return command_line.main("dataflows", DESCRIPTION, command_modules(), argv)
