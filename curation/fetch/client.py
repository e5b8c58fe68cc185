"""One URL: robots.txt, redirects by hand, headers before the body, bytes under a cap, tries.

The HTTP client is httpx; below it each host has a connection pool of its own (httpcore), whose
sockets only go where :mod:`curation.fetch.network` lets them. Nothing comes from the environment
(proxies, netrc), no cookie is kept, nothing is decompressed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from typing import Any, TypeVar

import httpx

from curation.fetch import robots
from curation.fetch.hosts import Budget, Host
from curation.fetch.network import GuardedBackend, Resolver
from curation.fetch.opt_out import opted_out
from curation.fetch.options import AGENT, FetchOptions
from curation.fetch.target import Target, site_of
from curation.fetch.transport import FAILURES, HostTransport, refusal_of
from curation.fetch.verdict import Refusal

T = TypeVar("T")
_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (408, 429, 500, 502, 503, 504)
_DRAINED = 16 * 2**10
_KEPT = 256
"""Connections of all hosts that stay open while nobody uses them: each takes a file descriptor."""
_ACCEPT = "image/avif,image/webp,image/png,image/jpeg,image/*;q=0.8"


class Client:
    """All hosts of one :func:`curation.fetch.fetch`; must be made and used in one event loop."""

    def __init__(self, options: FetchOptions, share: int, own: frozenset[str]) -> None:
        self.options, self._share = options, share
        self._own = frozenset(map(site_of, own))
        self._busy = asyncio.Semaphore(options.concurrency)
        # Names that nobody answers for take their time: others do not wait for them.
        self._resolver = Resolver(options.concurrency)
        self._backend = GuardedBackend(self._resolver, options.allow_private)
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._hosts: dict[str, Host] = {}
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._robots: dict[tuple[str, str, int], tuple[float, robots.Rules | Refusal]] = {}
        self._asking: dict[tuple[str, str, int], asyncio.Lock] = {}
        self._opt_out = frozenset(options.opt_out)
        self._http = httpx.AsyncClient(
            transport=HostTransport(lambda name: self.host(name).pool),
            trust_env=False,
            timeout=httpx.Timeout(options.timeout, pool=None),
            headers={
                "User-Agent": f"{AGENT}/{version('headrace')} (+{options.contact})",
                "Accept-Encoding": "identity",
            },
        )
        self._http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    async def close(self) -> None:
        """End all connections."""
        for host in self._hosts.values():
            await host.pool.aclose()
        self._resolver.close()

    def host(self, name: str) -> Host:
        """The limits and connections of a host."""
        if name not in self._hosts:
            options, share = self.options, self._share_of(name)
            self._hosts[name] = Host(
                self._backend,
                self._tls,
                share / options.requests_per_second,
                max(1, options.connections // share),
            )
        return self._hosts[name]

    def _share_of(self, name: str) -> int:
        # A host met through a redirect may be met by every unit that runs beside this one.
        own = site_of(name) in self._own
        return self._share if own else max(self._share, self.options.units_at_once)

    async def image(self, target: Target, budget: Budget, jitter: float) -> bytearray:
        """The bytes of an image. Raises Refusal; ``budget`` counts the tries."""
        return await self._tries(lambda: self._image(target, budget), target, budget, jitter)

    async def _tries(
        self, action: Callable[[], Awaitable[T]], target: Target, budget: Budget, jitter: float
    ) -> T:
        """Call ``action`` until it succeeds, fails for good, or ``retries`` more tries are used.

        The wait doubles from half a second, moved by ``jitter`` in [0, 1), unless the host named
        its own; a host that asks for more than ``max_retry_after`` is not asked again.
        """
        for attempt in range(1, self.options.retries + 2):
            budget.next_try()
            try:
                return await action()
            except Refusal as error:
                wait = 0.25 * 2**attempt * (1 + jitter)
                if error.after is not None:
                    wait = error.after
                if error.status in (429, 503):
                    self.host(error.host or target.host).pause(wait)
                if wait > self.options.max_retry_after and error.again:
                    text = f"asked to come back in {wait:.0f} s, limit"
                    text = f"{text} {self.options.max_retry_after:g}"
                    with _blaming(error.host or target.host):
                        raise Refusal("fetch_rate_limited", text, error.status) from None
                if not error.again or attempt > self.options.retries:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _image(self, target: Target, budget: Budget) -> bytearray:
        seen = {target.url}
        for _ in range(self.options.max_redirects + 1):
            with _blaming(target.host):
                await self._check_robots(target)
                async with self._get(target, budget, _ACCEPT) as answer:
                    location = await self._checked(answer)
                    if location is None:
                        return await self._body(answer, self.options.max_bytes)
            target = Target.of(location, target)
            if target.url in seen:
                raise Refusal("fetch_redirects", "the redirects run in a loop", answer.status_code)
            seen.add(target.url)
        raise Refusal("fetch_redirects", f"more than {self.options.max_redirects} redirects")

    async def _checked(self, answer: httpx.Response) -> str | None:
        """The Location of a redirect, or None for an image, of which no byte has been read yet."""
        status, options = answer.status_code, self.options
        if status != 200:
            await _drain(answer)
        if status != 200 and status not in _REDIRECTS:
            raise self._status_refusal(answer)
        headers = answer.headers
        if why := opted_out(headers.multi_items(), self._opt_out, options.tdm_reservation):
            raise Refusal("fetch_opt_out", why, status)
        if status in _REDIRECTS:
            if not (location := headers.get("location")):
                raise Refusal("fetch_redirects", f"status {status} without a Location", status)
            return location
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        raster = kind.startswith("image/") and kind != "image/svg+xml"
        if kind and not raster and kind not in ("application/octet-stream", "binary/octet-stream"):
            raise Refusal("fetch_wrong_type", f"content type {kind[:100]!r}", status)
        _check_coding(answer)
        length = _length(answer)
        if length is not None and length > options.max_bytes:
            raise Refusal("fetch_too_large", f"{length} bytes, limit {options.max_bytes}", status)
        return None

    def _status_refusal(self, answer: httpx.Response) -> Refusal:
        status = answer.status_code
        reason = f"fetch_http_{status // 100}xx" if 400 <= status < 600 else "fetch_http_status"
        reason = "fetch_rate_limited" if status == 429 else reason
        after = _retry_after(answer.headers.get("retry-after")) if status in (429, 503) else None
        return Refusal(reason, f"status {status}", status, again=status in _AGAIN, after=after)

    async def _check_robots(self, target: Target) -> None:
        """Raise Refusal if robots.txt of the target's origin does not allow it."""
        if not self.options.robots:
            return
        rules = await self._rules(target)
        if isinstance(rules, Refusal):
            raise rules.anew()
        if not rules.allows(target.url):
            raise Refusal("fetch_robots", "robots.txt disallows it")
        if rules.delay > self.options.max_retry_after:
            limit = self.options.max_retry_after
            raise Refusal("fetch_robots", f"Crawl-delay {rules.delay:g} s, limit {limit:g}")
        self.host(target.host).slow_down(rules.delay * self._share_of(target.host))

    async def _rules(self, target: Target) -> robots.Rules | Refusal:
        origin = target.origin
        async with self._asking.setdefault(origin, asyncio.Lock()):
            when, known = self._robots.get(origin, (0.0, None))
            if known is not None and time.monotonic() - when < robots.DAY:
                return known
            rules: robots.Rules | Refusal | None = robots.REMEMBERED.get(origin)
            if rules is None:
                budget = Budget(self.options.deadline)
                file = Target.of("/robots.txt", target)
                try:
                    body = await self._tries(
                        lambda: self._robots_txt(file, budget), file, budget, 0.5
                    )
                    rules = await asyncio.to_thread(robots.parse, bytes(body))
                except Refusal as error:
                    rules = robots.verdict_of(error)
                if isinstance(rules, robots.Rules):
                    robots.REMEMBERED.put(origin, rules)
            self._robots[origin] = time.monotonic(), rules
            return rules

    async def _robots_txt(self, target: Target, budget: Budget) -> bytearray:
        for _ in range(robots.MAX_REDIRECTS + 1):
            with _blaming(target.host):
                async with self._get(target, budget, "text/plain,*/*;q=0.1") as answer:
                    status = answer.status_code
                    if 200 <= status < 300:
                        _check_coding(answer)
                        return await self._body(answer, robots.MAX_BYTES, cut=True)
                    await _drain(answer)
                    location = answer.headers.get("location")
                    if status not in _REDIRECTS or not location:
                        raise self._status_refusal(answer)
            target = Target.of(location, target)
        raise Refusal("fetch_redirects", f"more than {robots.MAX_REDIRECTS} redirects")

    @asynccontextmanager
    async def _get(
        self, target: Target, budget: Budget, accept: str
    ) -> AsyncIterator[httpx.Response]:
        """The answer to a GET, its body unread, within the host's turn and the URL's budget."""
        host = self.host(target.host)

        async def trace(event: str, info: Any) -> None:
            if event.endswith("send_request_headers.started"):
                await host.sending(budget)

        request = self._http.build_request(
            "GET",
            target.parsed,
            headers={"Accept": accept},
            extensions={"trace": trace, "host": target.host},
        )
        answer: httpx.Response | None = None
        try:
            async with host.turn(self._busy, self.options.max_retry_after), budget.running():
                budget.asked()
                try:
                    answer = await self._http.send(request, stream=True)
                    yield answer
                finally:
                    if answer is not None:
                        await answer.aclose()
        except FAILURES as error:
            raise refusal_of(error, None if answer is None else answer.status_code) from None
        finally:
            await self._keep(target.host)

    async def _keep(self, name: str) -> None:
        """Keep the host's connections for its next request, and close those longest unused."""
        self._kept.pop(name, None)
        self._kept[name] = self.host(name).kept
        while len(self._kept) > 1 and sum(self._kept.values()) > _KEPT:
            oldest, _ = self._kept.popitem(last=False)
            await self.host(oldest).close_idle()

    async def _body(self, answer: httpx.Response, limit: int, cut: bool = False) -> bytearray:
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > limit:
                if cut:
                    break
                error = f"more than {limit} bytes"
                raise Refusal("fetch_too_large", error, answer.status_code)
        return body


@contextmanager
def _blaming(host: str) -> Iterator[None]:
    """Note in a Refusal which host it came of."""
    try:
        yield
    except Refusal as error:
        error.host = error.host or host
        raise


def _check_coding(answer: httpx.Response) -> None:
    """Raise Refusal for a compressed body, which was not asked for: nothing is decompressed here."""
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Refusal("fetch_encoded", f"content encoding {coding[:100]!r}", answer.status_code)


async def _drain(answer: httpx.Response) -> None:
    """Read a short body nobody wants, so that the connection can be used again."""
    length = _length(answer)
    if length is not None and length <= _DRAINED:
        async for _ in answer.aiter_raw():
            pass


def _length(answer: httpx.Response) -> int | None:
    text = answer.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (a number, or a date), None without a readable one."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), 1e9)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - time.time())
