"""Which ranks run on which host: a hostfile as DeepSpeed reads it, cut to the ranks asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import UsageError

_LINE = re.compile(r"^(\S+)\s+slots=(-?\w+)$")


@dataclass(frozen=True)
class Host:
    """A host, its first global rank, and how many ranks it runs."""

    name: str
    first: int
    ranks: int


def read_hostfile(path: str) -> dict[str, int]:
    """{host: slots} of a file of ``host slots=N`` lines, in its order; ``#`` begins a comment.

    Raises UsageError with the line's number for a line of another form, a host named twice and slots
    below 1.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--hostfile {path}: {why}") from None
    slots: dict[str, int] = {}
    for number, raw in enumerate(lines, 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        where = f"--hostfile {path}, line {number}"
        match = _LINE.match(line)
        if match is None or not match[2].lstrip("-").isdigit():
            raise UsageError(f"{where}: {line!r} is not of the form `host slots=N`")
        name, count = match[1], int(match[2])
        if name.startswith("-"):  # a remote shell would take it for an option
            raise UsageError(f"{where}: {name!r} is not a host's name")
        if name in slots:
            raise UsageError(
                f"{where}: {name} is named twice: give each host one line, with all slots"
            )
        if count < 1:
            raise UsageError(f"{where}: {name} has slots={count}: give 1 or more, or leave it out")
        slots[name] = count
    if not slots:
        raise UsageError(f"--hostfile {path}: no host in it: give lines of the form `host slots=N`")
    return slots


def spread(slots: dict[str, int], ranks: int | None) -> list[Host]:
    """Hosts with their ranks, filled in the file's order; without ``ranks`` every slot is one.

    Raises UsageError for more ranks than slots.
    """
    total = sum(slots.values())
    left = total if ranks is None else ranks
    if left > total:
        offered = ", ".join(f"{name} {count}" for name, count in slots.items())
        raise UsageError(
            f"--ranks {left}: the hosts have {total} slots ({offered}): give at most {total}, or raise slots="
        )
    hosts: list[Host] = []
    first = 0
    for name, count in slots.items():
        take = min(count, left - first)
        if take > 0:
            hosts.append(Host(name, first, take))
            first += take
    return hosts


def host_of(hosts: Sequence[Host], rank: int) -> Host:
    """Return the host that runs a rank."""
    return next(h for h in hosts if h.first <= rank < h.first + h.ranks)
