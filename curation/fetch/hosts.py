"""The turns of one host: its rate, its connections, the pauses it asks for, and giving it up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpcore

from curation.fetch.verdict import Refusal

_STRIKES = 10
_GIVE_UP = ("fetch_connect", "fetch_timeout", "fetch_rate_limited", "fetch_http_5xx")


class Budget:
    """Seconds that one URL may still spend on the network, over all its tries."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.used, self.tries = seconds, 0.0, 0
        self._asked = True
        self._paused = 0.0
        self._timeout: asyncio.Timeout | None = None

    def next_try(self) -> None:
        """The next request, if any, begins a new try."""
        self._asked = False

    def asked(self) -> None:
        """A request is about to be made: the try counts."""
        self.tries += not self._asked
        self._asked = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Count the time inside; Refusal(fetch_timeout) when none is left."""
        start = time.monotonic()
        self._paused = 0.0
        try:
            async with asyncio.timeout(max(0.0, self.seconds - self.used)) as self._timeout:
                yield
        except TimeoutError:
            raise Refusal("fetch_timeout", f"not done after {self.seconds:g} s") from None
        finally:
            self.used += time.monotonic() - start - self._paused
            self._timeout = None

    async def sleep(self, seconds: float) -> None:
        """Wait without counting."""
        if self._timeout is not None:
            when = self._timeout.when()
            self._timeout.reschedule(None if when is None else when + seconds)
        start = time.monotonic()
        await asyncio.sleep(seconds)
        self._paused += time.monotonic() - start


class Host:
    """Limits of one host name over all its ports: they hold for every request, robots.txt too.

    Requests leave at least ``interval`` seconds apart, measured when their headers are sent, over
    at most ``connections`` connections.
    """

    def __init__(
        self, backend: httpcore.AsyncNetworkBackend, tls: Any, interval: float, connections: int
    ) -> None:
        self.interval = interval
        self.pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=max(5.0, 2 * interval),
            network_backend=backend,
        )
        self._slots = asyncio.Semaphore(connections)
        self._gate = asyncio.Lock()
        self._closing = asyncio.Lock()
        self._active = 0
        self._next = self._sent = 0.0
        self._paused_until = 0.0
        self._strikes = 0
        self._given_up: Refusal | None = None

    @asynccontextmanager
    async def turn(self, busy: asyncio.Semaphore, longest: float) -> AsyncIterator[None]:
        """Wait for a connection, for the rate and for a place in ``busy``, then hold them.

        Raises Refusal if the host asked for a pause that ends more than ``longest`` seconds from
        now, or was given up.
        """
        async with self._slots:
            async with self._gate:  # one at a time, so that places free late cause no burst
                await self._wait(longest)
                await busy.acquire()
                try:
                    await self._wait(longest)
                    async with self._closing:
                        self._active += 1
                except BaseException:
                    busy.release()
                    raise
                self._next = time.monotonic() + self.interval
            try:
                yield
            finally:
                self._active -= 1
                busy.release()

    @property
    def kept(self) -> int:
        """Connections that are open, in use or not."""
        return len(self.pool.connections)

    async def close_idle(self) -> None:
        """Close the connections, unless one is in use; the next turn waits for that and opens anew."""
        if not self._active:
            async with self._closing:
                await self.pool.aclose()

    async def _wait(self, longest: float) -> None:
        while True:
            if self._given_up is not None:
                raise self._given_up.anew()
            now = time.monotonic()
            if (pause := self._paused_until - now) > longest:
                error = f"asked to come back in {pause:.0f} s, limit {longest:g}"
                raise Refusal("fetch_rate_limited", error)
            if (left := max(self._next, self._paused_until) - now) <= 0:
                return
            await asyncio.sleep(left)

    async def sending(self, budget: Budget) -> None:
        """Called when the headers are about to go out: connecting may have taken long."""
        while (left := self._sent + self.interval - time.monotonic()) > 0:
            await budget.sleep(left)
        self._sent = time.monotonic()
        self._next = max(self._next, self._sent + self.interval)

    def slow_down(self, interval: float) -> None:
        """Keep at least this many seconds between requests."""
        self.interval = max(self.interval, interval)

    def pause(self, seconds: float) -> None:
        """No request before so many seconds have passed."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def ended(self, reason: str, error: str | None) -> None:
        """Note how a URL ended: after ten such failures in a row the host is left alone."""
        if reason not in _GIVE_UP:
            self._strikes = 0
            return
        self._strikes += 1
        if self._strikes >= _STRIKES:
            self._given_up = Refusal(reason, f"not tried after {_STRIKES} URLs in a row: {error}")
