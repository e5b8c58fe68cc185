"""What a promise is: commands to run, values they print, and the limits those must keep."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "missed"]

_OPERATORS = {
    "==": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Command:
    """One command of a line.

    argv      words; `{name}` is replaced from the paths of the run (see `runner.Paths`).
    timeout   seconds after which the command has failed.
    env       variables added to the environment of the run.
    expect    the exit code it must have.
    """

    argv: tuple[str, ...]
    timeout: int = 600
    env: Mapping[str, str] = field(default_factory=dict)
    expect: int = 0


@dataclass(frozen=True)
class Limit:
    """A bound on one printed value, named by a dotted path (`en.keep`).

    missed   why a goal is not reached. Only goals (times, ratios) may have it; whatever is about
             correctness has none, and then a value beyond the bound fails the line.
    """

    value: str
    relation: Literal["==", "<=", ">=", "<", ">"]
    bound: Any
    missed: str | None = None

    def held(self, values: Mapping[str, Any]) -> bool:
        """Whether the value is there and within the bound."""
        found = lookup(values, self.value)
        return found is not None and bool(_OPERATORS[self.relation](found, self.bound))


@dataclass(frozen=True)
class Line:
    """One promise.

    id        unique within its system, in the order of the promises ("1.demo").
    promise   what is promised, in words.
    commands  run in order in the clone; JSON objects that they print, one a line, make the values,
              beside `seconds` (of all commands together).
    limits    what the values must keep.
    needs     ids of lines whose products this one uses; if one failed, so has this one.
    """

    id: str
    promise: str
    commands: tuple[Command, ...]
    limits: tuple[Limit, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """The promises of one system, and the optional tools whose absence is a failure there."""

    name: str
    lines: tuple[Line, ...]
    require: tuple[str, ...]


def lookup(values: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None."""
    node: Any = values
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    return node


def judge(line: Line, values: Mapping[str, Any]) -> tuple[Status, list[str], list[dict[str, Any]]]:
    """(status, reasons, one row a limit) of a line whose commands all had their exit codes."""
    status: Status = "pass"
    reasons: list[str] = []
    rows: list[dict[str, Any]] = []
    for limit in line.limits:
        found = lookup(values, limit.value)
        held = limit.held(values)
        bound = f"{limit.relation} {limit.bound}"
        rows.append({"value": limit.value, "found": found, "bound": bound, "held": held})
        if held:
            continue
        if limit.missed and found is not None:
            status = "missed" if status == "pass" else status
            reasons.append(f"{limit.value} is {found}, the goal is {bound}: {limit.missed}")
        else:
            status = "fail"
            reasons.append(f"{limit.value} is {found}, it must be {bound}")
    return status, reasons, rows
