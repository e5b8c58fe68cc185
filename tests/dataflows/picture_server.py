"""A local server of pictures on several loopback addresses that counts what is asked of it."""

from __future__ import annotations

import io
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

HOSTS = tuple(f"127.0.0.{number}" for number in range(2, 8))


def picture(number: int) -> bytes:
    """A JPEG of 64 x 48 pixels of one colour and a stripe, another one for each number."""
    image = Image.new("RGB", (64, 48), (number * 37 % 256, number * 101 % 256, number * 11 % 256))
    image.paste((255 - number % 200, 0, number % 250), (number % 40, 0, number % 40 + 9, 48))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PictureServer

    def do_GET(self) -> None:
        host = self.headers["Host"].partition(":")[0]
        name, _, number = self.path.strip("/").partition("/")
        self.server.note(host, self.path)
        if name == "ok":
            self.server.gate().wait(60)
            self._answer(200, picture(int(number)), "image/jpeg")
        elif name == "text":
            self._answer(200, b"<html>", "text/html")
        elif name == "broken":
            self._answer(200, b"\xff\xd8\xff\xe0 no picture at all", "image/jpeg")
        elif name == "later" and self.server.recovered:
            self._answer(200, picture(int(number)), "image/jpeg")
        else:
            self._answer(503 if name == "later" else 404, b"", "text/plain")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class PictureServer(ThreadingHTTPServer):
    """/ok/N is picture N, /later/N is 503 until ``recovered``, /text/N and /broken/N are no pictures,
    anything else is 404. ``asked`` counts (host, path). After ``free`` pictures the others wait
    until the server is told to ``go_on``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("0.0.0.0", 0), _Handler)
        self.asked: Counter[tuple[str, str]] = Counter()
        self.free = 10**9
        self._open, self._gate = threading.Event(), threading.Event()
        self._open.set()
        self.recovered = False
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """The port, the same on every address."""
        return int(self.server_address[1])

    @property
    def settings(self) -> list[str]:
        """What lets a fetch reach this server, and at full speed."""
        private = ",".join(f"{host}:{self.port}" for host in HOSTS)
        return [f"allow_private={private}", "requests_per_second=10000", "connections=4"]

    def url(self, host: int, path: str) -> str:
        """The URL of a path on one of the hosts."""
        return f"http://{HOSTS[host]}:{self.port}/{path}"

    def note(self, host: str, path: str) -> None:
        """Count a request."""
        with self._lock:
            self.asked[host, path] += 1

    def gate(self) -> threading.Event:
        """What a request waits for."""
        with self._lock:
            self.free -= 1
            return self._open if self.free >= 0 else self._gate

    def go_on(self) -> None:
        """Answer everything from now on."""
        self._gate.set()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no fault of the server."""

    def pictures_asked(self) -> Counter[tuple[str, str]]:
        """Requests other than those of robots.txt."""
        with self._lock:
            return Counter({k: n for k, n in self.asked.items() if k[1] != "/robots.txt"})
