"""Run a small stage killed at every storage operation, in forked children of a warm process."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.faults import inject


@dataclass
class Matrix:
    """What happened: operations of an undisturbed run, and kills that really struck."""

    operations: list[str] = field(default_factory=list)
    killed: int = 0
    completed: int = 0


def in_child(action: Callable[[], object]) -> int:
    """Run ``action`` in a forked child; return its exit code (1 for an exception, printed)."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            action()
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_everywhere(
    fresh: Callable[[], None],
    stage: Callable[[], None],
    check: Callable[[str], None],
    modes: Iterable[str] = ("before", "torn", "after"),
    step: int = 1,
    again: int = 1,
    only: str = "",
) -> Matrix:
    """For every operation and mode: ``fresh``, ``stage`` killed there, ``stage`` whole, ``check``.

    ``step`` > 1 takes every step-th operation, ``only`` those of one name. ``again`` > 1 kills that
    many runs in a row at the same number before the whole one. All run in children; ``check`` gets
    a label and raises.
    """

    def struck(number: int, mode: str) -> None:
        inject.install(number, mode=mode)
        stage()

    def counted(counter: Path) -> None:
        inject.install(counter=counter)
        stage()

    matrix = Matrix()
    with tempfile.TemporaryDirectory() as folder:
        counter = Path(folder) / "operations"
        in_child(fresh)
        if in_child(partial(counted, counter)):
            raise AssertionError("the undisturbed run failed")
        matrix.operations = inject.operations(counter)
    for mode in modes:
        for number in range(1, len(matrix.operations) + 1, step):
            if not matrix.operations[number - 1].startswith(only):
                continue
            label = f"killed at operation {number} ({mode}: {matrix.operations[number - 1]})"
            in_child(fresh)
            for _ in range(again):
                code = in_child(partial(struck, number, mode))
                if code not in (0, inject.EXIT):
                    raise AssertionError(f"{label}: the killed run failed otherwise, exit {code}")
                matrix.killed += code == inject.EXIT
            if in_child(stage):
                raise AssertionError(f"{label}: the run after it failed")
            if in_child(partial(check, label)):
                raise AssertionError(f"{label}: the check failed")
            matrix.completed += 1
    return matrix
