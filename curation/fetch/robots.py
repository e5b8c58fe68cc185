"""robots.txt by RFC 9309: who may fetch what, remembered for a day.

A status of 400 to 499 allows everything (429 is kept apart: the host is busy, so it is waited for
or refused); 500 to 599 and hosts that cannot be reached refuse everything; so does a file that
never ends in time. Of a file 500 KiB are read. More than five redirects count as no file.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from curation.fetch.options import AGENT
from curation.fetch.verdict import Refusal

MAX_BYTES = 500 * 2**10
MAX_REDIRECTS = 5
DAY = 24 * 3600.0
_REMEMBERED = 1024
# Reasons that say more than "robots.txt could not be read": nothing of such a host is reachable.
_TELLING = {
    "fetch_private_address",
    "fetch_dns",
    "fetch_connect",
    "fetch_tls",
    "fetch_rate_limited",
}
_AGENT_LINE = re.compile(r"\s*user[-\s]?agent\s*[:\s]\s*(\*(?=[\s#]|$)|[a-z_-]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Rules:
    """What a robots.txt says to us; without a file everything is allowed."""

    parsed: Any = None

    def allows(self, url: str) -> bool:
        """Whether the URL may be fetched."""
        return self.parsed is None or self.parsed.can_fetch(url, AGENT)

    @property
    def delay(self) -> float:
        """Crawl-delay in seconds, 0 without one."""
        return 0.0 if self.parsed is None else self.parsed.crawl_delay(AGENT) or 0.0


def parse(body: bytes) -> Rules:
    """The rules of a file; never raises for what the bytes can hold.

    Groups of other agents are merged into one first: protego stores every rule once for each
    agent of its group, so that 500 KiB of a hostile file could fill the memory. A group is ours
    by the product token alone (letters, "_" and "-"), in any case; what follows is a version or so.
    """
    from protego import Protego

    lines = []
    for line in body[:MAX_BYTES].decode("utf-8-sig", "replace").splitlines():
        if found := _AGENT_LINE.match(line):
            name = found[1].lower()
            line = f"User-agent: {name if name in ('*', AGENT) else 'somebody-else'}"
        lines.append(line)
    return Rules(Protego.parse("\n".join(lines)))


def verdict_of(error: Refusal) -> Rules | Refusal:
    """What a robots.txt that was not got means for the URLs of its host."""
    if error.reason in ("fetch_http_4xx", "fetch_redirects"):
        return Rules()
    if error.reason in _TELLING:
        return Refusal(error.reason, f"robots.txt: {error.error}", error.status)
    return Refusal("fetch_robots", f"robots.txt could not be read: {error.error}", error.status)


class Remembered:
    """Rules of origins seen in the last 24 hours, at most 1,024; shared by a process's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: OrderedDict[tuple[str, str, int], tuple[float, Rules]] = OrderedDict()

    def get(self, origin: tuple[str, str, int]) -> Rules | None:
        """The rules, if younger than a day."""
        with self._lock:
            when, rules = self._rules.get(origin, (0.0, None))
            return rules if rules is not None and time.monotonic() - when < DAY else None

    def put(self, origin: tuple[str, str, int], rules: Rules) -> None:
        """Remember; the oldest makes room."""
        with self._lock:
            self._rules.pop(origin, None)
            self._rules[origin] = (time.monotonic(), rules)
            while len(self._rules) > _REMEMBERED:
                self._rules.popitem(last=False)


REMEMBERED = Remembered()
