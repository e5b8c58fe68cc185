"""Claims: the smallest honest experiment for each system, its records and its table.

A claim module has ``TITLE``, ``METRIC`` (fixed before the run), ``SOURCES`` (globs of what decides its
numbers), ``Settings``, ``cost(settings)``, ``tasks(settings)``, ``work(task, folder, settings)`` and
``judge(rows, settings)``. `trainer.claims.harness` runs the tasks; a finished one is never repeated.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from schemas.command_line import suggest
from schemas.errors import UsageError

CLAIMS = {"metaclip2": "trainer.claims.metaclip2"}


def claim(name: str) -> ModuleType:
    """The module of a claim. UsageError for an unknown one."""
    if name not in CLAIMS:
        raise UsageError(f"{name}: unknown claim.{suggest(name, CLAIMS)}")
    return import_module(CLAIMS[name])
