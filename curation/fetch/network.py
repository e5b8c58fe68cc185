"""Which addresses may be reached: names are resolved once, and the checked address is connected to.

The check sits where connections are made, below the HTTP client, so nothing gets around it: not
robots.txt, not a redirect, not a name that answers differently the second time. The request keeps
the name (Host header, TLS server name, certificate); only the socket goes to the address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import httpcore

from curation.fetch.verdict import Refusal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# What is not the public internet, by the IANA registries of special-purpose addresses, and the
# metadata servers of clouds that use public ones.
_NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host
        "169.254.0.0/16",  # link-local and metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
# Of IPv6 only global unicast is let through, which leaves out loopback, link-local, unique local
# (fd00:ec2::254 too), multicast, mapped IPv4 and NAT64; these are the tunnels and examples in it.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_LOOPBACK: list[Address] = [ipaddress.IPv4Address("127.0.0.1")]
_TRIED = 3


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _GLOBAL_6 and not any(address in network for network in _NOT_PUBLIC_6)


class Resolver:
    """Addresses of names, remembered; ``localhost`` and names below it are 127.0.0.1 (RFC 6761)."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")
        self._known: dict[str, list[Address]] = {}

    async def addresses(self, host: str) -> list[Address]:
        """All addresses of a name. Raises Refusal(fetch_dns)."""
        if host == "localhost" or host.endswith(".localhost"):
            return _LOOPBACK
        if host not in self._known:
            loop = asyncio.get_running_loop()
            self._known[host] = await loop.run_in_executor(self._threads, _look_up, host)
        return self._known[host]

    def forget(self, host: str) -> None:
        """Ask again next time: nothing answered at the addresses known."""
        self._known.pop(host, None)

    def close(self) -> None:
        """End the threads without waiting for names still asked for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        again = error.errno == socket.EAI_AGAIN
        raise Refusal("fetch_dns", f"{host}: {error.strerror}", again=again) from None
    except (UnicodeError, OSError) as error:
        raise Refusal("fetch_dns", f"{host}: not a host name ({error})") from None
    # A scope ("%eth0") marks a link-local address; without it the address says so itself.
    texts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ipaddress.ip_address(text) for text in texts]


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only; ``allowed`` names ``host:port`` exempt from that."""

    def __init__(self, resolver: Resolver, allowed: Iterable[str]) -> None:
        self._resolver, self._allowed = resolver, frozenset(allowed)
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that is permitted and answers. Raises Refusal."""
        name = host.lower().rstrip(".")
        found = await self._resolver.addresses(name)
        place = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        permitted = found if place in self._allowed else [a for a in found if is_public(a)]
        if not permitted:
            addresses = ", ".join(map(str, found))
            raise Refusal("fetch_private_address", f"{name} is at {addresses}")
        for address in permitted[:_TRIED]:
            try:
                return await self._sockets.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        self._resolver.forget(name)
        raise last
