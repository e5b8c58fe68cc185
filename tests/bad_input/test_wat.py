"""WAT files with bad envelopes, bad links and damage: the rest goes on."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.command import Ran, ingest
from tests.bad_input.making import envelope, link, warc_record, wat

# name: (envelope, reason, what the error says); each makes one position
ENVELOPES: dict[str, tuple[bytes, str, str]] = {
    "cut JSON": (envelope([link("/b.jpg")])[:-9], "bad_record", "the envelope cannot be read"),
    "not JSON": (b"<html></html>", "bad_record", "the envelope cannot be read"),
    "empty": (b"", "bad_record", "the envelope cannot be read"),
    "an array": (b"[]", "bad_record", "the envelope cannot be read"),
    "no envelope": (b"{}", "bad_record", "no Envelope object"),
    "envelope is text": (b'{"Envelope": "x"}', "bad_record", "no Envelope object"),
    "links are text": (envelope("x"), "bad_record", "Links is not an array"),
    "bad bytes": (envelope([link("/b.jpg")]).replace(b"dog", b"d\xffg"), "bad_record", "envelope"),
    "half an emoji": (envelope([link("/b.jpg", "\ud83d")]), "bad_utf8", "text 'alt'"),
    "half an emoji in URL": (envelope([link("/\ud83d.jpg")]), "bad_utf8", "the URL"),
    "inlined image": (envelope([link("data:image/gif;base64,R0")]), "bad_record", "not an http(s)"),
    "script": (envelope([link("javascript:alert(1)")]), "bad_record", "not an http(s) URL"),
    "file": (envelope([link("file:///etc/passwd")]), "bad_record", "not an http(s) URL: file:"),
    "relative to nothing": (envelope([link("b.jpg")], page=""), "bad_record", "not an http(s)"),
    "bad address": (envelope([link("http://[::1/b.jpg")]), "bad_record", "cannot be joined"),
    "too long": (envelope([link("/b.jpg", "x" * 60_000)]), "bad_record", "more than 50000 bytes"),
}


@pytest.fixture(scope="module")
def ran(place: Path) -> Ran:
    bodies = []
    for number, (body, _, _) in enumerate(ENVELOPES.values()):
        bodies += [envelope([link(f"/{number}.jpg")]), body]
    bodies.append(envelope([link("/last.jpg")]))
    return ingest(wat(place / "a.wat.gz", bodies), place / "out", "max_record_bytes=50000")


@pytest.mark.parametrize("name", ENVELOPES)
def test_dead_letter_names_row_and_reason(ran: Ran, name: str) -> None:
    _, reason, message = ENVELOPES[name]
    letter = ran.letter(2 * list(ENVELOPES).index(name) + 1)
    assert letter["reason"] == reason, letter["error"]
    assert message in letter["error"]


def test_the_pages_between_them_stay(ran: Ran) -> None:
    assert ran.positions == list(range(0, 2 * len(ENVELOPES) + 1, 2))


def pages(count: int) -> list[bytes]:
    return [gzip.compress(warc_record(envelope([link(f"/{n}.jpg")]))) for n in range(count)]


def cut(members: list[bytes]) -> bytes:
    return b"".join(members)[:-20]


def flipped(members: list[bytes]) -> bytes:
    middle = bytearray(members[5])
    middle[len(middle) // 2] ^= 0xFF
    return b"".join([*members[:5], bytes(middle), *members[6:]])


def garbage_between(members: list[bytes]) -> bytes:
    return b"".join([*members[:5], b"\0" * 999, *members[6:]])


def wrong_checksum(members: list[bytes]) -> bytes:
    bad = members[5][:-8] + b"\0\0\0\0" + members[5][-4:]
    return b"".join([*members[:5], bad, *members[6:]])


def bomb(members: list[bytes]) -> bytes:
    packed = gzip.compress(warc_record(b'{"Envelope": "' + b" " * 100_000_000 + b'"}'))
    return b"".join([*members[:5], packed, *members[6:]])


def promises_more(members: list[bytes]) -> bytes:
    record = warc_record(envelope([link("/b.jpg")]), length=10_000)
    return b"".join([*members[:5], gzip.compress(record), *members[6:]])


def bad_header(members: list[bytes]) -> bytes:
    record = b"WRAC/1.0\r\n" + warc_record(envelope([]))[10:]
    return b"".join([*members[:5], gzip.compress(record), *members[6:]])


def raw_deflate(members: list[bytes]) -> bytes:
    packed = zlib.compress(warc_record(envelope([])))
    return b"".join([*members[:5], packed, *members[6:]])


# name: (what happens to ten records, of which the last or number 5 is lost; what the error says)
DAMAGE: dict[str, tuple[Callable[[list[bytes]], bytes], int, str]] = {
    "cut": (cut, 9, "nothing after it could be read"),
    "flipped bit": (flipped, 5, "reading goes on"),
    "garbage": (garbage_between, 5, "reading goes on"),
    "wrong checksum": (wrong_checksum, 5, "incorrect data check"),
    "bomb": (bomb, 5, "a member of more than 67108864 bytes"),
    "promises more": (promises_more, 5, "a record of 10000 bytes ends after"),
    "bad header": (bad_header, 5, "cannot be followed any further"),
    "no gzip": (raw_deflate, 5, "reading goes on"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_costs_the_record_it_lies_in(tmp_path: Path, name: str) -> None:
    damage, lost, message = DAMAGE[name]
    path = tmp_path / "a.wat.gz"
    path.write_bytes(damage(pages(10)))
    ran = ingest(path, tmp_path / "out")
    (letter,) = ran.letters
    assert (letter["position"], letter["reason"]) == (lost, "bad_record")
    assert message in letter["error"]
    assert ran.records is not None
    kept = [url.rpartition("/")[2] for url in ran.records.column("url").to_pylist()]
    assert kept == [f"{n}.jpg" for n in range(10) if n != lost]


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_without_members_of_its_own_is_read_as_a_stream(
    tmp_path: Path, packed: bool
) -> None:
    records = b"".join(warc_record(envelope([link(f"/{n}.jpg")])) for n in range(10))
    path = tmp_path / "a.wat"
    path.write_bytes((gzip.compress(records) if packed else records)[:-30])
    ran = ingest(path, tmp_path / "out", "max_record_bytes=1500")
    kept = len(ran.positions)  # 30 compressed bytes are several records that are alike
    assert kept == 9 or (packed and kept > 3)
    assert ran.positions == list(range(kept))
    (letter,) = ran.letters
    assert (letter["position"], letter["reason"]) == (kept, "bad_record")


def test_links_without_text_are_counted(tmp_path: Path) -> None:
    links = [link("/a.jpg", None), link("/b.jpg", " \n"), link("data:image/png,x", None)]
    odd = [None, 5, {"path": "IMG@/src"}, {"url": "/c.jpg"}, link("/c.jpg") | {"path": "A@/href"}]
    body = envelope([*links, *odd, link("/d.jpg", "dog", title=7)])
    ran = ingest(wat(tmp_path / "a.wat.gz", [body, json.dumps({"Envelope": {}}).encode()]),
                 tmp_path / "out")  # fmt: skip
    assert ran.positions == [3]
    assert ran.rejected == {"empty_text": 3}
    assert ran.letters == []
