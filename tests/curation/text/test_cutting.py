"""Records of byte ranges: wherever a file is cut, each record comes once and whole."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.files import Damaged
from curation.text.cutting import Piece, cuts_anywhere, lead, paragraphs, pieces

BIG = 1 << 20


def split(data: bytes, separator: bytes) -> list[tuple[int, bytes]]:
    """(offset, record) by bytes.split; what is after a last separator, if empty, is no record."""
    found, offset = [], 0
    parts = data.split(separator)
    for number, part in enumerate(parts):
        if part or number < len(parts) - 1:
            found.append((offset, part))
        offset += len(part) + len(separator)
    return found


def ranges(cuts: list[int], size: int) -> list[tuple[int, int | None]]:
    bounds = sorted({cut % (size + 1) for cut in cuts} | {0})
    return list(zip(bounds, [*bounds[1:], None], strict=True))


def read(
    data: bytes, separator: bytes, start: int, end: int | None, limit: int = BIG
) -> list[Piece]:
    stream = io.BytesIO(data)
    stream.seek(lead(separator, start))
    return list(pieces(stream, separator, limit, start, end))


FRAGMENTS = st.sampled_from(
    [b"a", b"b", b"<|e", b"|>", b"<|e|>", b"\n", b"\r\n", b" ", b"\n\n", b"\xff"]
)
TEXTS = st.lists(FRAGMENTS, max_size=50).map(b"".join)
CUTS = st.lists(st.integers(0, 300), max_size=6)


@given(TEXTS, CUTS, st.sampled_from([b"\n", b"<|e|>", b"ab"]))
def test_cut_anywhere_each_record_comes_once(
    data: bytes, cuts: list[int], separator: bytes
) -> None:
    found = [
        (piece.offset, piece.data)
        for start, end in ranges(cuts, len(data))
        for piece in read(data, separator, start, end)
    ]
    assert found == split(data, separator)


@given(TEXTS, CUTS)
def test_paragraphs_of_any_ranges_are_those_of_the_whole(data: bytes, cuts: list[int]) -> None:
    def of(start: int, end: int | None) -> list[tuple[int, bytes, int]]:
        stream = io.BytesIO(data)
        stream.seek(lead(b"\n", start))
        lines = pieces(stream, b"\n", BIG, start)
        return [(p.offset, p.data, p.length) for p in paragraphs(lines, BIG, start, end)]

    whole = of(0, None)
    expected = re.split(rb"(?:\A|\n)(?:[ \r]*(?:\n|\Z))+", data)
    assert [text for _, text, _ in whole] == [text for text in expected if text.strip()]
    assert all(data[offset : offset + size] == text for offset, text, size in whole)
    assert [one for start, end in ranges(cuts, len(data)) for one in of(start, end)] == whole


@pytest.mark.parametrize(
    ("separator", "anywhere"),
    [(b"\n", True), (b"<|e|>", True), (b"\n\n", False), (b"abcab", False), (b"---", False)],
)
def test_separators_that_overlap_themselves_are_known(separator: bytes, anywhere: bool) -> None:
    assert cuts_anywhere(separator) is anywhere


def test_a_long_record_is_counted_and_not_held() -> None:
    long = b"x" * (3 * BIG)
    found = read(b"a\n" + long + b"\nb\n", b"\n", 0, None, limit=BIG)
    assert [(p.offset, p.length) for p in found] == [(0, 1), (2, 3 * BIG), (3 * BIG + 3, 1)]
    assert found[1].data == long[: len(found[1].data)]


def test_a_long_record_ends_at_a_separator_that_lies_across_two_reads() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(BIG + 3, size or -1))

    data = b"x" * (2 * BIG + 3) + b"<|e|>" + b"y"
    found = list(pieces(Slow(data), b"<|e|>", BIG))
    assert [(p.offset, p.length) for p in found] == [(0, 2 * BIG + 3), (2 * BIG + 8, 1)]


def test_a_stream_that_breaks_says_so() -> None:
    class Broken(io.RawIOBase):
        given = False

        def read(self, size: int = -1) -> bytes:
            if self.given:
                raise Damaged("the stream cannot be read past byte 5")
            self.given = True
            return b"a\nbcd"

    found = list(pieces(Broken(), b"\n", BIG))  # type: ignore[arg-type]
    assert [(p.data, p.error != "") for p in found] == [(b"a", False), (b"bcd", True)]
