"""Bundles that a runner runs twice, delivers twice, out of order, or late, as clusters do.

Local runners fail a job when a worker dies, so they never show these; ``install`` makes every DoFn of
ours do its work twice (the first output is thrown away: a worker that lost contact after writing),
hands the fragments of a shuffle over reversed and one of them twice, and remembers every call, so
that ``late()`` can do the work once more after everything is committed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from dataflows.pipelines.fetch import fetched
from dataflows.pipelines.metaclip2 import automata, balance
from dataflows.transforms import shuffle, units

DOFNS = (
    *(units._List, units._Run, units._WriteResult),
    *(shuffle._Map, shuffle._Reduce, shuffle._Emit, shuffle._WriteKey),
    *(automata._Build, balance._Run),
    *(fetched._Fetch, fetched._Plan, fetched._Join),
)

_calls: list[Callable[[], object]] = []


def install(seed: int) -> None:
    """Patch every DoFn of this process; the order of fragments is drawn from ``seed``."""
    _calls.clear()
    draw = random.Random(seed)
    for dofn in DOFNS:
        dofn.process = _doubled(dofn, dofn.process, draw)  # type: ignore[method-assign]


def late() -> int:
    """Do all work once more, as zombies whose bundles come last; returns how many calls."""
    calls = list(_calls)
    for call in calls:
        call()
    return len(calls)


def _doubled(dofn: type, process: Callable[..., Any], draw: random.Random) -> Callable[..., Any]:
    def twice(self: Any, element: Any) -> Iterator[Any]:
        if dofn is shuffle._Reduce:
            element = (element[0], _disordered(element[1], draw))
        _calls.append(lambda: list(process(self, element)))
        list(process(self, element))
        yield from process(self, element)

    return twice


def _disordered(tables: Iterable[pa.Table], draw: random.Random) -> list[pa.Table]:
    """The same fragments in another order, one of them delivered twice."""
    fragments = list(tables)
    fragments.append(draw.choice(fragments))
    draw.shuffle(fragments)
    return fragments
