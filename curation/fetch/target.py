"""A URL taken apart, or refused before anybody is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from curation.fetch.verdict import Refusal

_PORTS = {"http": 80, "https": 443}
_LONGEST = 8_000


def site_of(host: str) -> str:
    """The host without a leading ``www.``."""
    return host.removeprefix("www.")


@dataclass(frozen=True)
class Target:
    """Where a request goes: ``url`` as it is sent, without fragment."""

    url: str
    scheme: str
    host: str
    port: int
    parsed: Any = field(compare=False, repr=False)  # httpx.URL

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a robots.txt holds for."""
        return self.scheme, self.host, self.port

    @classmethod
    def of(cls, text: str | None, base: Target | None = None) -> Target:
        """Parse an absolute URL, or with ``base`` a redirect's Location. Raises Refusal.

        Refused: other schemes than http and https, user names and passwords, ports below 1024
        other than 80 and 443 (mail and its like), more than 8,000 characters.
        """
        import httpx

        if not text:
            raise Refusal("fetch_bad_url", "there is no URL")
        if len(text) > _LONGEST:
            raise Refusal("fetch_bad_url", f"{len(text)} characters, limit {_LONGEST}")
        try:
            parsed = httpx.URL(text) if base is None else httpx.URL(base.url).join(text)
            parsed = parsed.copy_with(fragment=None)
            scheme, host, port = parsed.scheme, parsed.raw_host.decode("ascii"), parsed.port
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise Refusal("fetch_bad_url", str(error) or type(error).__name__) from None
        if scheme not in _PORTS:
            raise Refusal("fetch_bad_url", f"scheme {scheme!r}: only http and https are fetched")
        if parsed.userinfo:
            raise Refusal("fetch_bad_url", "the URL carries a user name or password")
        host = host.lower().rstrip(".")
        if not host or any(c.isspace() for c in host):
            raise Refusal("fetch_bad_url", "the URL names no host")
        port = port or _PORTS[scheme]
        if port > 65535 or (port < 1024 and port not in _PORTS.values()):
            raise Refusal("fetch_bad_url", f"port {port}: only 80, 443 and from 1024 to 65535")
        return cls(str(parsed), scheme, host, port, parsed)
