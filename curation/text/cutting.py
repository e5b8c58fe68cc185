"""Records of a byte stream: pieces between separators, in bounded memory, from anywhere in a file.

A range [start, end) of a file owns the records that begin in it, so that ranges which cover a file
give each record once, wherever they are cut. That needs a separator whose occurrences cannot
overlap each other (``cuts_anywhere``); other files are read by one reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from curation.ingest.files import CHUNK, Damaged

KEPT_OF_LONG = 2**20
"""Bytes that are kept of a record over the limit."""


@dataclass
class Piece:
    """A record: the byte at which it begins, its bytes (only a beginning, if it is over the limit),
    its true length; ``error`` if the stream broke in it."""

    offset: int
    data: bytes
    length: int
    error: str = ""


def cuts_anywhere(separator: bytes | None) -> bool:
    """Whether a file with this separator may be cut at any byte: no end of it is a beginning."""
    if not separator:
        return False
    return not any(separator.startswith(separator[i:]) for i in range(1, len(separator)))


def pieces(
    stream: BinaryIO,
    separator: bytes | None,
    max_bytes: int,
    start: int = 0,
    end: int | None = None,
) -> Iterator[Piece]:
    """Records that begin in [start, end), without their separators; None makes one of the whole.

    ``stream`` stands at ``lead(separator, start)``. An empty record after the last separator is
    none. A stream that breaks ends in a piece that says so.
    """
    width = len(separator or b"")
    offset, inside = lead(separator, start), start == 0
    rest, kept, dropped = b"", b"", 0
    while True:
        try:
            chunk = stream.read(CHUNK)
        except Damaged as error:
            yield Piece(offset, kept or rest[:KEPT_OF_LONG], dropped + len(rest), str(error))
            return
        whole = rest + chunk
        *closed, rest = whole.split(separator) if separator else [whole]
        for piece in closed:
            length = dropped + len(piece)
            if inside:
                if end is not None and offset >= end:
                    return
                yield Piece(offset, kept or piece, length)
            offset, inside = offset + length + width, True
            kept, dropped = b"", 0
        if not chunk:
            if inside and dropped + len(rest) and (end is None or offset < end):
                yield Piece(offset, kept or rest, dropped + len(rest))
            return
        if inside and end is not None and offset >= end:
            return
        if dropped or len(rest) > max(max_bytes, KEPT_OF_LONG):
            # Hold no more of it than what finds its end.
            kept = kept or rest[:KEPT_OF_LONG]
            tail = rest[len(rest) - min(len(rest), width - 1) :] if width > 1 else b""
            dropped, rest = dropped + len(rest) - len(tail), tail


def lead(separator: bytes | None, start: int) -> int:
    """Where to begin reading, so that a record which begins at ``start`` is seen to."""
    return max(0, start - len(separator or b""))


def paragraphs(
    lines: Iterator[Piece], max_bytes: int, start: int = 0, end: int | None = None
) -> Iterator[Piece]:
    """Runs of lines that are not blank, as they stand, from lines that begin at ``start`` or later.

    A range owns the paragraphs after the blank lines that begin in it; the first one also what
    stands before any blank line.
    """
    inside = start == 0
    held: list[bytes] = []
    offset, length = 0, 0

    def take() -> Piece:
        # Lines are counted with their ends; the last one's is not part of the paragraph.
        return Piece(offset, b"\n".join(held), length - 1)

    for line in lines:
        if line.error:
            if length:
                yield take()
            yield line
            return
        if not inside and end is not None and line.offset >= end:
            return
        if line.data.strip() or line.length > len(line.data):
            if inside:
                if not length:
                    offset = line.offset
                length += line.length + 1
                if length <= max(max_bytes, KEPT_OF_LONG) + 1:
                    held.append(line.data)
            continue
        if length:
            yield take()
            held, length = [], 0
        if end is not None and line.offset >= end:
            return
        inside = True
    if length:
        yield take()
