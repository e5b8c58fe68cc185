"""Makes inputs, good and bad, as bytes and files."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image


def picture(
    kind: str = "PNG", size: tuple[int, int] = (24, 16), seed: int = 0, **options: Any
) -> bytes:
    """A small picture with structure, encoded."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, extra: bytes = b"", pixels: bytes | None = None) -> bytes:
    """A grey PNG of the size its header says, whatever its pixels are."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = b"\0" * ((width + 1) * height) if pixels is None else pixels
    body = png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + extra + body


def raw_strings(values: Sequence[bytes | None]) -> pa.Array:
    """A string column whose bytes are as given, UTF-8 or not, as a careless writer leaves them."""
    return pa.array(list(values), pa.binary()).view(pa.string())


def warc_record(body: bytes, kind: str = "metadata", length: int | None = None) -> bytes:
    """One uncompressed WARC record."""
    size = len(body) if length is None else length
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://example.org/\r\n"
        "WARC-Date: 2024-05-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def envelope(links: Any, page: str = "http://example.org/a/page.html", base: str = "") -> bytes:
    """A WAT envelope of a page with these links."""
    head = {"Base": base} if base else {}
    html = {"Head": head, "Links": links}
    body = {
        "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": page},
        "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}},
    }
    return json.dumps({"Envelope": body}).encode()


def link(url: str, alt: str | None = "a dog", **more: Any) -> dict[str, Any]:
    """An image link as WAT has it."""
    found: dict[str, Any] = {"path": "IMG@/src", "url": url, **more}
    return found if alt is None else {**found, "alt": alt}


def wat(path: Path, bodies: Sequence[bytes]) -> Path:
    """A .wat.gz: one gzip member a record, as the format wants."""
    members = [gzip.compress(warc_record(b"software: test\r\n", "warcinfo"))]
    members += [gzip.compress(warc_record(body)) for body in bodies]
    path.write_bytes(b"".join(members))
    return path


def tar(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """A tar of these members in order."""
    items = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in items:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, seed: int = 0, caption: str = "a dog", **more: Any) -> list[tuple[str, bytes]]:
    """The three members of an img2dataset sample."""
    info = {"url": f"http://example.org/{key}.jpg", "caption": caption, "key": key, **more}
    return [
        (f"{key}.jpg", picture("JPEG", seed=seed)),
        (f"{key}.txt", caption.encode()),
        (f"{key}.json", json.dumps(info).encode()),
    ]


def jsonl(path: Path, rows: Sequence[Mapping[str, Any] | bytes]) -> Path:
    """JSON lines; bytes go in as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
