"""The turns of a host, where the network would hide them."""

from __future__ import annotations

import asyncio
import itertools
import time

import httpcore
import pytest

from curation.fetch.hosts import Budget, Host
from curation.fetch.verdict import Refusal


def test_requests_are_apart_when_they_leave_not_when_they_connect() -> None:
    """One connects slowly: the one behind it must not leave right before it."""
    sent: list[float] = []
    budgets = [Budget(0.35), Budget(0.35), Budget(0.35)]

    async def one(host: Host, busy: asyncio.Semaphore, budget: Budget, connecting: float) -> None:
        async with host.turn(busy, 10.0), budget.running():
            await asyncio.sleep(connecting)
            await host.sending(budget)
            sent.append(time.monotonic())

    async def all_of_them() -> None:
        host = Host(httpcore.AnyIOBackend(), None, interval=0.2, connections=3)
        busy = asyncio.Semaphore(3)
        delays = (0.25, 0.0, 0.0)
        await asyncio.gather(*(one(host, busy, *x) for x in zip(budgets, delays, strict=True)))

    asyncio.run(all_of_them())
    assert min(b - a for a, b in itertools.pairwise(sent)) >= 0.199
    # Waiting for the turn used up nothing of what a URL may take.
    assert max(budget.used for budget in budgets) < 0.33


def test_a_budget_ends_whatever_is_under_way() -> None:
    async def slow(budget: Budget) -> None:
        for _ in range(3):
            async with budget.running():
                await asyncio.sleep(0.06)

    budget = Budget(0.15)
    with pytest.raises(Refusal) as found:
        asyncio.run(slow(budget))
    assert (found.value.reason, found.value.again) == ("fetch_timeout", False)
    assert budget.used == pytest.approx(0.15, abs=0.05)
