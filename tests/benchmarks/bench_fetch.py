"""Fetching against httpx's own bare rate: same client version, same server, same concurrency.

    python -m tests.benchmarks.bench_fetch [--images 1000] [--hosts 64] [--concurrency 32] [--runs 7]

A server in a process of its own answers with 640x480 JPEGs on as many loopback addresses as there
are hosts. The bare side is one ``httpx.AsyncClient``: GET, read the body, nothing else. Ours, three
cases, each in turn with the bare side, one JSON line each with the ratio of rates:

* ``fetch``: the network half of ``curation.fetch.fetch``: robots.txt of each host, addresses
  checked, turns and budgets, opt-outs and types from the headers, byte caps, SHA-256; no decoding.
* ``fetch_kept``: all of ``fetch()`` with ``resize="no"``: each image is also decoded in a child
  process and gets its perceptual hash; the bytes are kept.
* ``fetch_resized``: all of ``fetch()`` with ``resize="keep_ratio"``: decoded, resized to 256 on the
  shorter side, encoded as JPEG again. Its rate is the decoder's, not the network's.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import httpx
import numpy as np
import pyarrow as pa
from PIL import Image

from curation.fetch import FetchOptions, fetch, robots
from curation.fetch.rows import Row
from curation.fetch.run import Downloads


def picture(seed: int) -> bytes:
    """A 640x480 JPEG of about the size of a photograph's (60 to 80 kB)."""
    coarse = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((640, 480), 24).convert("RGB")
    out = io.BytesIO()
    Image.blend(image, grain, 0.12).save(out, "JPEG", quality=88)
    return out.getvalue()


def serve(ready: Connection) -> None:
    """Answer every GET with a picture and /robots.txt with rules, on all loopback addresses."""
    bodies = [picture(seed) for seed in range(8)]
    robots = b"User-agent: *\nDisallow: /private/\n"

    def answer(kind: str, body: bytes) -> bytes:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    pictures = [answer("image/jpeg", body) for body in bodies]
    rules = answer("text/plain", robots)

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport, self.pending, self.count = transport, b"", 0

        def data_received(self, data: bytes) -> None:
            self.pending += data
            while b"\r\n\r\n" in self.pending:
                head, _, self.pending = self.pending.partition(b"\r\n\r\n")
                self.count += 1
                body = rules if head.startswith(b"GET /robots") else pictures[self.count % 8]
                self.transport.write(body)

    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "0.0.0.0", 0, backlog=512)
        ready.send((server.sockets[0].getsockname()[1], sum(map(len, bodies)) // len(bodies)))
        await server.serve_forever()

    asyncio.run(forever())


def bare(urls: list[str], concurrency: int) -> None:
    """GET and read every URL."""

    async def all_of_them() -> None:
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        queue = iter(urls)
        async with httpx.AsyncClient(limits=limits, trust_env=False) as client:

            async def one() -> None:
                for url in queue:
                    answer = await client.get(url)
                    assert answer.status_code == 200
                    assert len(answer.content) > 1000

            await asyncio.gather(*(one() for _ in range(concurrency)))

    asyncio.run(all_of_them())


def network_half(table: pa.Table, options: FetchOptions) -> None:
    """Everything but decoding, as ``fetch`` runs it."""
    ids, urls = table["image_id"].to_pylist(), table["url"].to_pylist()
    rows = [Row(i, url) for i, url in zip(ids, urls, strict=True)]

    async def all_of_them() -> None:
        downloads = Downloads(rows, options, 1)
        async for row in downloads:
            assert row.reason == "", (row.reason, row.error)
            await downloads.release(len(row.body))
            row.body = bytearray()

    asyncio.run(all_of_them())


def whole(table: pa.Table, options: FetchOptions) -> None:
    """All of ``fetch``."""
    seen = 0
    for part in fetch(table, options):
        assert set(part["reason"].to_pylist()) == {""}, part["error"].to_pylist()
        seen += part.num_rows
    assert seen == table.num_rows


def measure(
    case: str, ours: Callable[[], None], peer: Callable[[], None], images: int, runs: int
) -> dict[str, object]:
    """Alternate both sides after one warm-up each; return rates and their ratio.

    Of earlier runs nothing is remembered: every run asks each host for its robots.txt.
    """
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    sides = [("ours", ours), ("bare", peer)]
    for run in range(runs + 1):
        for name, action in sides if run % 2 else sides[::-1]:
            robots.REMEMBERED = robots.Remembered()
            start = time.perf_counter()
            action()
            if run:
                times[name].append(time.perf_counter() - start)
    ratios = sorted(b / o for b, o in zip(times["bare"], times["ours"], strict=True))
    return {
        "case": case,
        "images": images,
        "ours_per_s": round(images / statistics.median(times["ours"]), 1),
        "bare_per_s": round(images / statistics.median(times["bare"]), 1),
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "min": round(ratios[0], 3),
            "max": round(ratios[-1], 3),
        },
        "httpx": httpx.__version__,
        "cores": os.cpu_count(),
    }


def main(argv: list[str] | None = None) -> int:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    ready, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port, size = ready.recv()
    names = [f"127.0.{1 + i // 200}.{1 + i % 200}:{port}" for i in range(args.hosts)]
    urls = [f"http://{names[i % len(names)]}/{i}.jpg" for i in range(args.images)]
    ids = [i.to_bytes(16, "big") for i in range(args.images)]
    table = pa.table({"image_id": pa.array(ids, pa.binary(16)), "url": urls})
    options = FetchOptions(
        contact="bench@example.org",
        requests_per_second=1e6,
        connections=2,
        concurrency=args.concurrency,
        allow_private=tuple(names),
    )
    kept = FetchOptions(**{**vars(options), "resize": "no"})
    cases: list[tuple[str, Callable[[], None]]] = [
        ("fetch", lambda: network_half(table, options)),
        ("fetch_kept", lambda: whole(table, kept)),
        ("fetch_resized", lambda: whole(table, options)),
    ]
    for case, ours in cases:
        found = measure(case, ours, lambda: bare(urls, args.concurrency), args.images, args.runs)
        facts = {"hosts": args.hosts, "concurrency": args.concurrency, "bytes_each": size}
        print(json.dumps({**found, **facts}), flush=True)
    server.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
