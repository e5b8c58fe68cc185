"""A local web server that misbehaves in every way the fetcher must survive, and logs what it saw.

Names below ``localhost`` lead to it (``a.localhost``, ``b.localhost``, ...), so a test has as many
hosts as it likes. What is answered depends on the path, for robots.txt on the host's name.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate

from PIL import Image


def jpeg(size: tuple[int, int] = (640, 480)) -> bytes:
    """A smooth picture with some colour in it."""
    image = Image.linear_gradient("L").resize(size)
    out = io.BytesIO()
    Image.merge("RGB", (image, image.transpose(0), image.transpose(1))).save(out, "JPEG")
    return out.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a few kilobytes whose header promises ``side`` x ``side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000 * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@dataclass
class Seen:
    """One request: when it came and when it was answered or its connection ended."""

    host: str
    path: str
    headers: dict[str, str]
    start: float
    connection: int
    end: float = float("inf")


@dataclass
class Connection:
    """One connection and the host that it was used for."""

    opened: float
    host: str = ""
    closed: float = float("inf")


@dataclass
class Log:
    """All that the server saw."""

    requests: list[Seen] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    def of(self, host: str) -> list[Seen]:
        """Requests to one host in the order of their coming."""
        return [seen for seen in self.requests if seen.host == host]

    def most_at_once(self, host: str) -> int:
        """The largest number of connections that one host had open at any time."""
        mine = [c for c in self.connections if c.host == host]
        return max(sum(c.opened <= t.opened < c.closed for c in mine) for t in mine)


ROBOTS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "disallow": (200, {}, b"User-agent: *\nDisallow: /\n"),
    "ours": (200, {}, b"User-agent: *\nAllow: /\n\nUser-agent: HeadRace\nDisallow: /\n"),
    "others": (200, {}, b"User-agent: headracer\nUser-agent: head\nDisallow: /\n"),
    "robots500": (500, {}, b""),
    "robots403": (403, {}, b""),
    "robots429": (429, {"Retry-After": "3600"}, b""),
    "robotsloop": (302, {"Location": "/robots.txt"}, b""),
    "robotsmoved": (301, {"Location": "http://disallow.localhost:{port}/robots.txt"}, b""),
    "robotsprivate": (301, {"Location": "http://10.0.0.1/robots.txt"}, b""),
    "robotslate": (200, {}, b"User-agent: *\nDisallow: /good\n" + b"#" * 600_000),
    "robotsdelay": (200, {}, b"User-agent: *\nCrawl-delay: 0.3\n"),
    "robotsgzip": (
        200,
        {"Content-Encoding": "gzip"},
        gzip.compress(b"User-agent: *\nDisallow: /\n"),
    ),
    "delayed": (200, {}, b"User-agent: *\nCrawl-delay: 0.3\n"),
    "robotscentury": (200, {}, b"User-agent: *\nCrawl-delay: 864000\n"),
}
"""robots.txt by the first label of the host's name; others have none (404)."""

_IMAGE = {"Content-Type": "image/jpeg"}


class FetchServer:
    """Runs in a thread of its own on 127.0.0.1; use as a context manager."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.log = Log()
        self.good = jpeg()
        self.bodies: dict[str, tuple[str, bytes]] = {"/bomb": ("image/png", bomb())}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()
        self.port = 0

    def __enter__(self) -> FetchServer:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *unused: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def url(self, host: str, path: str) -> str:
        """The address of a path at one of the server's hosts."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host}.localhost:{self.port}{path}"

    def allow(self, *hosts: str) -> tuple[str, ...]:
        """What ``allow_private`` needs for these hosts."""
        return tuple(f"{host}.localhost:{self.port}" for host in hosts)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(
            self._connection, "127.0.0.1", 0, ssl=self._tls, backlog=200
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.log.connections)
        connection = Connection(time.monotonic())
        self.log.connections.append(connection)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                host = headers["host"].removeprefix("www.").partition(".")[0]
                path = head[0].split(" ")[1]
                seen = Seen(host, path, headers, time.monotonic(), number)
                connection.host = connection.host or host
                self.log.requests.append(seen)
                try:
                    if not await self._answer(seen, writer):
                        break
                    await writer.drain()
                finally:
                    seen.end = time.monotonic()
        connection.closed = time.monotonic()
        writer.close()

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        """Answer; False ends the connection."""
        self._counts[seen.host, seen.path] += 1
        name = seen.path.split("/")[1].partition("?")[0]
        if seen.path == "/robots.txt":
            status, headers, body = ROBOTS.get(seen.host, (404, {}, b""))
            headers = {k: v.replace("{port}", str(self.port)) for k, v in headers.items()}
            return _send(writer, status, {"Content-Type": "text/plain", **headers}, body)
        if seen.path in self.bodies:
            kind, body = self.bodies[seen.path]
            return _send(writer, 200, {"Content-Type": kind}, body)
        if name in _PLAIN:
            status, headers, body = _PLAIN[name](self)
            return _send(writer, status, headers, body)
        return await getattr(self, f"_{name}")(seen, writer)

    async def _good(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        return _send(writer, 200, {**_IMAGE, "Set-Cookie": "id=1; Path=/"}, self.good)

    async def _paced(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.05)
        return _send(writer, 200, _IMAGE, self.good)

    async def _silent(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(30)
        return False

    async def _drip(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {**_IMAGE, "Content-Length": str(len(self.good))}))
        for byte in self.good:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.1)
        return True

    async def _truncated(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {**_IMAGE, "Content-Length": str(len(self.good))}))
        writer.write(self.good[:1000])
        return False

    async def _cut(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        """No length, and the picture ends early: only decoding can tell."""
        writer.write(_head(200, {**_IMAGE, "Connection": "close"}) + self.good[:3000])
        return False

    async def _endless(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {**_IMAGE, "Transfer-Encoding": "chunked"}) + self.good[:0])
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()

    async def _garbage(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        return False

    async def _close(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        return False

    async def _busy(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        """429 for a second, once."""
        if self._counts[seen.host, seen.path] == 1:
            return _send(writer, 429, {"Retry-After": "1"}, b"")
        return _send(writer, 200, _IMAGE, self.good)

    async def _date(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        """503 until a date two to three seconds away, once."""
        if self._counts[seen.host, seen.path] == 1:
            date = formatdate(time.time() + 3, usegmt=True)
            return _send(writer, 503, {"Retry-After": date}, b"")
        return _send(writer, 200, _IMAGE, self.good)

    async def _hops(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        left = int(seen.path.split("/")[2])
        place = f"/hops/{left - 1}" if left else "/good"
        return _send(writer, 302, {"Location": place}, b"moved")


def _to(place: str) -> Callable[[FetchServer], tuple[int, dict[str, str], bytes]]:
    return lambda server: (302, {"Location": place.replace("{port}", str(server.port))}, b"moved")


def _status(
    status: int, headers: dict[str, str] | None = None
) -> Callable[[FetchServer], tuple[int, dict[str, str], bytes]]:
    return lambda server: (status, headers or {}, b"sorry")


def _with(headers: dict[str, str]) -> Callable[[FetchServer], tuple[int, dict[str, str], bytes]]:
    return lambda server: (200, {**_IMAGE, **headers}, server.good)


_PLAIN: dict[str, Callable[[FetchServer], tuple[int, dict[str, str], bytes]]] = {
    "loop": _to("/loop2"),
    "loop2": _to("/loop"),
    "nowhere": _status(302),
    "toprivate": _to("http://10.0.0.1/x.jpg"),
    "tometadata": _to("http://169.254.169.254/latest/meta-data/"),
    "toloopback": _to("http://not-allowed.localhost:{port}/good"),
    "tofile": _to("file:///etc/passwd"),
    "topassword": _to("http://me:secret@good.localhost:{port}/good"),
    "todisallowed": _to("http://disallow.localhost:{port}/good"),
    "tomeeting": _to("http://meeting.localhost:{port}/paced/0"),
    "tobusy": _to("http://engaged.localhost:{port}/busy"),
    "toengaged": _to("http://engaged.localhost:{port}/good"),
    "todead": _to("http://departed.localhost:{port}/close/0"),
    "towww": _to("http://www.bare.localhost:{port}/good"),
    "toother": _to("http://other.localhost:{port}/good"),
    "html": lambda server: (200, {"Content-Type": "text/html"}, b"<html></html>"),
    "svg": lambda server: (200, {"Content-Type": "image/svg+xml"}, b"<svg/>"),
    "octets": lambda server: (200, {"Content-Type": "application/octet-stream"}, server.good),
    "untyped": lambda server: (200, {}, server.good),
    "nonsense": lambda server: (200, _IMAGE, b"no picture at all" * 100),
    "empty": lambda server: (200, _IMAGE, b""),
    "huge": _with({"Content-Length": "10000000000"}),
    "gzip": lambda server: (
        200,
        {**_IMAGE, "Content-Encoding": "gzip"},
        gzip.compress(server.good),
    ),
    "s204": _status(204),
    "s404": _status(404, {"X-Robots-Tag": "noindex"}),
    "s500": _status(500),
    "s503": _status(503),
    "never": _status(429, {"Retry-After": f"Mon, {10**20} Jan 2020 00:00:00 GMT"}),
    "far": _status(429, {"Retry-After": "3600"}),
    "optout": _with({"X-Robots-Tag": "NoAI"}),
    "optoutimages": _with({"X-Robots-Tag": "nofollow, noimageai"}),
    "optoutours": _with({"X-Robots-Tag": "headrace: noindex"}),
    "optoutothers": _with({"X-Robots-Tag": "otherbot: noai, noindex"}),
    "tdm": _with({"TDM-Reservation": "1"}),
    "tdmzero": _with({"TDM-Reservation": "0"}),
}


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _send(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes) -> bool:
    length = {} if status == 204 else {"Content-Length": str(len(body))}
    writer.write(_head(status, {**length, **headers}) + (b"" if status == 204 else body))
    return True
