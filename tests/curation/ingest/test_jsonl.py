"""JSON lines: compression, line ends, columns."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest import IngestOptions, jsonl
from curation.ingest.files import Damaged
from schemas.ids import image_id
from tests.curation.ingest.reading import whole

ROWS = [{"url": f"http://example.org/{n}.jpg", "text": f"dog {n}"} for n in range(2000)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
PACKED = {
    ".jsonl": LINES,
    ".jsonl.gz": gzip.compress(LINES),
    ".jsonl.bz2": bz2.compress(LINES),
    ".jsonl.xz": lzma.compress(LINES),
    ".jsonl.zst": pa.Codec("zstd").compress(LINES, asbytes=True),
    ".json.gz": gzip.compress(LINES[:50_000]) + gzip.compress(LINES[50_000:]),
    "": LINES[:-1],
}


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_or_not(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pool{suffix}"
    path.write_bytes(PACKED[suffix])
    read = whole(path)
    assert read.table["url"].to_pylist() == [row["url"] for row in ROWS]
    assert read.texts() == [[("text", row["text"])] for row in ROWS]
    assert read.letters == []


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.bz2", ".jsonl.xz"])
def test_a_cut_stream_keeps_what_came_before(tmp_path: Path, suffix: str) -> None:
    rows = [{"url": f"http://a/{n * 7919}", "text": f"{n * n:x}"} for n in range(60_000)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    pack = {".jsonl.gz": gzip.compress, ".jsonl.bz2": bz2.compress, ".jsonl.xz": lzma.compress}
    packed = pack[suffix](data)
    path = tmp_path / f"pool{suffix}"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    read = whole(path)
    (letter,) = read.letters
    kept = read.table.num_rows
    assert kept > 10_000
    assert read.table["url"].to_pylist() == [row["url"] for row in rows[:kept]]
    assert letter["position"] == kept
    assert f"line {kept + 1} and all after it are lost" in letter["error"]


@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"x")), max_size=20),
    st.integers(1, 50),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_lines_are_those_of_split(pieces: list[bytes], chunk: int, ended: bool) -> None:
    data = b"\n".join(pieces) + (b"\n" if ended else b"")

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(chunk)

    expected = [(n, line) for n, line in enumerate(data.split(b"\n")) if line.strip()]
    found = list(jsonl.lines(Slow(data), 10_000))
    assert [(line.number, line.data) for line in found] == expected
    limit = 10
    bounded = list(jsonl.lines(Slow(data), limit))
    assert [(line.number, line.length) for line in bounded] == [(n, len(x)) for n, x in expected]


def test_long_lines_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "KEPT_OF_BAD", 10)

    class Endless:
        left = 1000

        def read(self, size: int) -> bytes:
            self.left -= 1
            return b"x" * 1000 if self.left > 0 else b""

    (line,) = jsonl.lines(Endless(), 5000)  # type: ignore[arg-type]
    assert line.length == 999_000
    assert len(line.data) == 10


def test_a_stream_that_breaks_ends_in_a_line_that_says_so() -> None:
    class Broken:
        def __init__(self) -> None:
            self.parts = [b'{"a": 1}\n{"b"', b": 2}\n{"]

        def read(self, size: int) -> bytes:
            if not self.parts:
                raise Damaged("torn")
            return self.parts.pop(0)

    found = list(jsonl.lines(Broken(), 100))  # type: ignore[arg-type]
    assert [(line.number, line.data, line.error) for line in found] == [
        (0, b'{"a": 1}', ""), (1, b'{"b": 2}', ""), (2, b"{", "torn"),
    ]  # fmt: skip


def test_keys_are_found_in_any_of_the_first_lines(tmp_path: Path) -> None:
    rows = [{"other": 1}, {"alt": "dog", "img_url": "http://a/1"}, {"alt": ["cat", {"de": "Katze"}],
            "img_url": "http://a/2"}]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    read = whole(path)
    assert read.texts() == [[("alt", "dog")], [("alt", "cat"), ("de", "Katze")]]
    assert read.table["position"].to_pylist() == [2, 4]  # numbers of lines, from 0
    assert [x["reason"] for x in read.letters] == ["no_url_no_image"]


def test_ids_scores_and_digests(tmp_path: Path) -> None:
    rows = [
        {"id": 12, "text": "a", "score": 1, "sha256": "AB" * 32},
        {"id": "x", "text": "b", "score": None, "sha256": ""},
        {"id": None, "text": "c"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    read = whole(path, score="score")
    assert read.table["image_id"].to_pylist() == [image_id(key="12"), image_id(key="x")]
    assert read.table["score"].to_pylist() == [1.0, None]
    assert read.table["sha256"].to_pylist() == [b"\xab" * 32, None]
    assert len(read.letters) == 1


def test_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{bad\n" + LINES)
    read = whole(path, IngestOptions(limit=100))
    assert read.table.num_rows == 99
    assert len(read.letters) == 1
    assert read.ledger.count("record", "in") == 100
