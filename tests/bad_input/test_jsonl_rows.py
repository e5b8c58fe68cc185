"""Bad lines of JSONL: each costs itself and is a dead letter with its line and its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bad_input.command import Ran, ingest
from tests.bad_input.making import jsonl

LIMIT = 4000


def row(**values: object) -> bytes:
    return json.dumps({"url": "http://example.org/1.jpg", "text": "a dog", **values}).encode()


# name: (line, reason, what the error says)
CASES: dict[str, tuple[bytes, str, str]] = {
    "cut in a string": (b'{"url": "http://a/1", "text": "do', "bad_record", "not valid JSON"),
    "bare word": (b"hello", "bad_record", "not valid JSON"),
    "array": (b"[1, 2]", "bad_record", "is JSON an array, not an object"),
    "string": (b'"http://a/1"', "bad_record", "is JSON a string, not an object"),
    "number": (b"3", "bad_record", "is JSON a number, not an object"),
    "true": (b"true", "bad_record", "is JSON true or false, not an object"),
    "null": (b"null", "bad_record", "is JSON null, not an object"),
    "not a number": (b'{"url": "http://a/1", "text": NaN}', "bad_record", "not valid JSON"),
    "single quotes": (b"{'url': 'http://a/1'}", "bad_record", "not valid JSON"),
    "trailing comma": (b'{"url": "http://a/1", "text": "x",}', "bad_record", "not valid JSON"),
    "two objects": (row() + row(), "bad_record", "not valid JSON"),
    "bare control": (b'{"url": "http://a/1", "text": "a\x01b"}', "bad_record", "not valid JSON"),
    "raw NUL": (b'{"url": "http://a/1", "text": "a\0b"}', "bad_record", "not valid JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + row(), "bad_record", "not valid JSON"),
    "latin-1": (b'{"url": "http://a/1", "text": "caf\xe9"}', "bad_utf8", "not valid UTF-8"),
    "overlong": (b'{"url": "http://a/1", "text": "\xc0\xaf"}', "bad_utf8", "not valid UTF-8"),
    "cut character": (b'{"url": "http://a/1", "text": "\xe3\x81"}', "bad_utf8", "byte"),
    "raw surrogate": (b'{"url": "http://a/1", "text": "\xed\xa0\x80"}', "bad_utf8", "byte"),
    "half an emoji": (row(text="\ud83d"), "bad_utf8", "text 'text' is not valid UTF-8"),
    "half an emoji in URL": (row(url="http://a/\ud83d"), "bad_utf8", "the URL is not valid UTF-8"),
    "text is a number": (row(text=5), "bad_record", "a text is expected in 'text', found int"),
    "text holds a number": (row(text={"en": 5}), "bad_record", "a text is expected in 'en'"),
    "text is true": (row(text=[True]), "bad_record", "found bool"),
    "URL is a number": (row(url=5), "bad_record", "'url' is 5, not a string"),
    "URL is an object": (row(url={}), "bad_record", "'url' is {}, not a string"),
    "no URL": (b'{"text": "a dog"}', "no_url_no_image", "set columns.url"),
    "URL is null": (row(url=None), "no_url_no_image", "set columns.url"),
    "URL is empty": (row(url=""), "no_url_no_image", "set columns.url"),
    "score is text": (row(score="0.3"), "bad_record", "'score' is '0.3', not a number"),
    "score is true": (row(score=True), "bad_record", "'score' is True, not a number"),
    "short SHA-256": (row(sha256="abcd"), "bad_record", "'abcd', not 64 hex digits"),
    "SHA-256 of other letters": (row(sha256="z" * 64), "bad_record", "not 64 hex digits"),
    "SHA-256 is a number": (row(sha256=7), "bad_record", "is 7, not 64 hex digits"),
    "nested 1,500 deep": (
        b'{"url": "http://a/1", "text": ' + b"[" * 1500 + b"]" * 1500 + b"}",
        "bad_record",
        "not valid JSON",
    ),
    "nested 900 deep": (
        b'{"url": "http://a/1", "text": ' + b"[" * 900 + b"]" * 900 + b"}",
        "bad_record",
        "nested more than 16 deep",
    ),
    "too long": (row(text="x" * LIMIT), "bad_record", f"limit {LIMIT}"),
}


@pytest.fixture(scope="module")
def ran(place: Path) -> Ran:
    """One file: a good line before each bad one, and one at the end."""
    rows: list[bytes] = []
    for number, (line, _, _) in enumerate(CASES.values()):
        rows += [row(url=f"http://example.org/{number}.jpg", score=0.5, sha256="ab" * 32), line]
    source = jsonl(place / "pool.jsonl", [*rows, row()])
    return ingest(
        source, place / "out", "columns.score=score", f"max_record_bytes={LIMIT}", "format=jsonl"
    )


@pytest.mark.parametrize("name", CASES)
def test_dead_letter_names_row_and_reason(ran: Ran, name: str) -> None:
    _, reason, message = CASES[name]
    letter = ran.letter(2 * list(CASES).index(name) + 1)
    assert letter["reason"] == reason
    assert message in letter["error"]
    assert letter["source"].endswith("pool.jsonl")


def test_no_other_row_is_lost_or_doubled(ran: Ran) -> None:
    assert ran.positions == list(range(0, 2 * len(CASES) + 1, 2))
    assert sum(ran.rejected.values()) == len(ran.letters) == len(CASES)


def test_records_without_text_are_counted(tmp_path: Path) -> None:
    texts = ["", None, [], {}, {"en": ""}, ["", None]]
    rows = [row(text=text) for text in texts]
    ran = ingest(jsonl(tmp_path / "a.jsonl", [row(), *rows]), tmp_path / "out")
    assert ran.positions == [0]
    assert ran.rejected == {"empty_text": len(texts)}


def test_one_bad_row_in_ten_thousand_costs_exactly_that_row(tmp_path: Path) -> None:
    rows = [row(url=f"http://example.org/{n}.jpg") for n in range(10_000)]
    rows[7_777] = b'{"url": "http://a/1", "text": "\xff"}'
    ran = ingest(jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert ran.positions == [n for n in range(10_000) if n != 7_777]
    assert [letter["position"] for letter in ran.letters] == [7_777]
