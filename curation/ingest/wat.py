"""Common Crawl WAT: image links with their texts (papers/metaclip2.md, section 4.1).

Of each envelope the HTML links whose path begins with ``IMG@/src`` and that have a URL; the URL
joined to the page's (or its ``<base>``); texts of ``alt``, ``title`` and ``data-image-title`` with
line ends as spaces, stripped, empty ones dropped. Links without text are counted (``empty_text``).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import urljoin

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from curation.ingest.builder import Builder
from curation.ingest.files import CHUNK, Damaged, open_decoded, open_raw
from curation.ingest.jsonl import KEPT_OF_BAD, parse_json
from curation.ingest.records import Bad, Raw
from schemas.errors import InputError

KEYS = ("alt", "title", "data-image-title")
_MAGIC = b"\x1f\x8b\x08"
# Absolute URLs that urljoin returns as they are, whatever the page: most links of most pages.
_UNTOUCHED = re.compile(
    r"https?://[A-Za-z0-9.:-]+(/[!-\"$-:<=>@A-Z\\^-~]*)?(\?[!-\"$-:<-Z\\^-~]+)?"
)
_HTTP = re.compile(r"https?://", re.IGNORECASE)

Piece = bytes | Bad
"""A piece of a WAT file: one or more whole WARC records, or what could not be read."""


def members(stream: BinaryIO, max_bytes: int) -> Iterator[bytes | str]:
    """Decompressed gzip members of a file, one record each as the format wants; faults as text.

    After a member that cannot be read the next one is looked for by its magic number, so damage
    costs the members it lies in.
    """
    buffer, offset, end = b"", 0, False
    fault = ""
    while True:
        if len(buffer) < CHUNK and not end:
            more = stream.read(CHUNK)
            buffer, end = buffer + more, not more
        if not buffer:
            break
        inflate = zlib.decompressobj(31)
        try:
            data = inflate.decompress(buffer, max_bytes + 1)
            while not inflate.eof and len(data) <= max_bytes and not end:
                more = stream.read(CHUNK)
                buffer, end = buffer + more, not more
                data += inflate.decompress(more, max_bytes + 1 - len(data))
            if len(data) > max_bytes:
                raise zlib.error(f"a member of more than {max_bytes} bytes")
            if not inflate.eof:
                raise zlib.error("the member ends early")
        except zlib.error as error:
            fault = fault or f"compressed bytes from {offset}: {error}"
            skip = buffer.find(_MAGIC, 1)
            # The magic may be cut by the end of the buffer: keep its possible beginning.
            skip = skip if skip > 0 else (len(buffer) if end else max(1, len(buffer) - 2))
            buffer, offset = buffer[skip:], offset + skip
            continue
        if fault:
            yield f"{fault}; reading goes on at byte {offset}"
            fault = ""
        yield data
        rest = inflate.unused_data
        offset += len(buffer) - len(rest)
        buffer = rest
    if fault:
        yield f"{fault}; nothing after it could be read"


def envelopes(path: str, max_bytes: int) -> Iterator[Piece]:
    """Payloads of the metadata records of a file in order, and what could not be read."""
    with open_raw(path) as raw:
        magic = raw.read(2)
        raw.seek(0)
        if magic == _MAGIC[:2]:
            first = next(iter(members(raw, max_bytes)), b"")
            raw.seek(0)
            if not (isinstance(first, str) and "more than" in first):
                for member in members(raw, max_bytes):
                    if isinstance(member, str):
                        yield Bad(0, "bad_record", member)
                    else:
                        yield from _records(io.BytesIO(member), max_bytes)
                return
    # Not compressed, not gzip, or one gzip member around the whole file: as a stream.
    with open_decoded(path) as stream:
        yield from _records(stream, max_bytes)


class _Metered:
    """A stream of which one record may take ``limit`` bytes; ``taken`` is reset for each."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._limit = stream, limit
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.taken += len(data)
        if self.taken > self._limit:
            raise Damaged(f"more than {self._limit} bytes without the end of a record")
        return data


def _records(stream: BinaryIO, max_bytes: int) -> Iterator[Piece]:
    metered = _Metered(stream, max_bytes + CHUNK)
    try:
        # Payloads are JSON: nothing in them may steer the reader.
        for record in ArchiveIterator(metered, no_record_parse=True):
            metered.taken = 0
            if record.rec_type == "metadata":
                yield _payload(record, metered, max_bytes)
    except (Damaged, ArchiveLoadFailed, EOFError, ValueError) as error:
        yield Bad(0, "bad_record", f"the WARC records cannot be followed any further: {error}")


def _payload(record: Any, metered: _Metered, max_bytes: int) -> Piece:
    content, size, found = record.content_stream(), record.length, 0
    parts = []
    while part := content.read(CHUNK):
        found += len(part)
        metered.taken = 0 if size is not None else metered.taken
        if found <= max_bytes:
            parts.append(part)
    if found > max_bytes:
        return Bad(0, "bad_record", f"a record of {found} bytes, limit {max_bytes}")
    data = b"".join(parts)
    if size != found:
        error = f"a record of {size} bytes ends after {found}"
        return Bad(0, "bad_record", error, data[:KEPT_OF_BAD])
    return data


def check_wat(path: str, max_bytes: int) -> None:
    """Raise InputError unless one of a file's first records is a WAT envelope."""
    for piece in itertools.islice(envelopes(path, max_bytes), 20):
        if isinstance(piece, Bad) or b'"Envelope"' in piece[:4096]:
            return
    raise InputError(
        f"{path} holds WARC records but no WAT metadata (JSON with an Envelope): give the .wat.gz "
        "files of the crawl, not its .warc.gz or .wet.gz files"
    )


def read_wat(path: str, max_bytes: int) -> Iterator[Raw]:
    """RAW tables of a file; ``position`` numbers its image links and what could not be read."""
    builder, position = Builder(), 0
    for piece in envelopes(path, max_bytes):
        position = add_piece(builder, piece, position)
        if builder.full:
            yield builder.take()
    if len(builder):
        yield builder.take()


def add_piece(builder: Builder, piece: Piece, position: int) -> int:
    """Add the image links of one envelope (or a bad piece); returns the next position."""
    if isinstance(piece, Bad):
        piece.position = position
        builder.refuse(piece)
        return position + 1
    try:
        page, links = _page(parse_json(piece))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        why = f"the envelope cannot be read: {error}"
        builder.refuse(Bad(position, "bad_record", why, piece[:KEPT_OF_BAD]))
        return position + 1
    for link in links:
        if _is_image(link):
            texts = _texts(link)
            url, wrong = _joined(page, link["url"])
            # Inlined pictures without text are many and tell nothing: no dead letter for them.
            builder.add(position, texts, url=url, wrong=wrong if texts else None)
            position += 1
    return position


def _page(envelope: Any) -> tuple[str, list[Any]]:
    """URL that a page's links are relative to, and its links. Raises for what is no envelope."""
    body = envelope.get("Envelope")
    if not isinstance(body, dict):
        raise ValueError("no Envelope object")
    response = (body.get("Payload-Metadata") or {}).get("HTTP-Response-Metadata") or {}
    html = response.get("HTML-Metadata") or {}
    links = html.get("Links") or []
    if not isinstance(links, list):
        raise ValueError("Links is not an array")
    page = (body.get("WARC-Header-Metadata") or {}).get("WARC-Target-URI") or ""
    base = (html.get("Head") or {}).get("Base")
    if isinstance(base, str) and base.strip():
        with contextlib.suppress(ValueError):  # no browser could use it: the page's own counts
            page = urljoin(page, base.strip())
    return str(page), links


def _is_image(link: Any) -> bool:
    if not isinstance(link, dict):
        return False
    path, url = link.get("path"), link.get("url")
    return isinstance(path, str) and path.startswith("IMG@/src") and isinstance(url, str)


def _joined(page: str, url: str) -> tuple[bytes, tuple[str, str] | None]:
    full, wrong = url, None
    if not _UNTOUCHED.fullmatch(url):
        try:
            full = urljoin(page, url)
        except ValueError as error:
            wrong = ("bad_record", f"the URL cannot be joined to its page's: {error}")
        else:
            if not _HTTP.match(full):
                wrong = ("bad_record", f"not an http(s) URL: {full[:80]}")
    return full.encode("utf-8", "surrogatepass"), wrong


def _texts(link: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    pairs: list[tuple[str, bytes | None]] = []
    for key in KEYS:
        text = link.get(key)
        if isinstance(text, str):
            text = text.replace("\n", " ").replace("\r", " ").strip()
            if text:
                pairs.append((key, text.encode("utf-8", "surrogatepass")))
    return pairs
