"""Folders of images whose captions are bad, absent, or name images that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.command import Ran, ingest
from tests.bad_input.making import jsonl, picture

# name: (lines of metadata.jsonl, reason, what the error says); each names no good image
ROWS: dict[str, tuple[bytes, str]] = {
    "image not there": (b'{"file_name": "gone.png", "text": "dog"}', "which is not in the folder"),
    "outside": (b'{"file_name": "../../etc/passwd", "text": "dog"}', "'../../etc/passwd'"),
    "absolute": (b'{"file_name": "/etc/passwd", "text": "dog"}', "'/etc/passwd'"),
    "hidden": (b'{"file_name": ".hidden.png", "text": "dog"}', "'.hidden.png'"),
    "no name": (b'{"text": "dog"}', "no file_name"),
    "name is a number": (b'{"file_name": 7, "text": "dog"}', "no file_name"),
    "name is empty": (b'{"file_name": "", "text": "dog"}', "no file_name"),
    "not JSON": (b"{file_name}", "metadata.jsonl, line"),
    "an array": (b'["a.png", "dog"]', "JSON an array, not an object"),
}


@pytest.fixture(scope="module")
def ran(place: Path) -> Ran:
    """Images 0, 1, 2 with good captions; 3 and 4 with bad ones; then the bad rows."""
    folder = place / "pictures"
    folder.mkdir()
    for n in range(5):
        (folder / f"{n}.png").write_bytes(picture(seed=n))
    (folder / "5.jpg").write_bytes(b"<html>")
    (folder / ".hidden.png").write_bytes(picture())
    rows: list[dict[str, object] | bytes] = [
        {"file_name": f"{n}.png", "text": f"dog {n}"} for n in range(3)
    ]
    rows += [{"file_name": "3.png", "text": 5}, {"file_name": "5.jpg", "text": "not an image"}]
    jsonl(folder / "metadata.jsonl", rows + [row for row, _ in ROWS.values()])
    (folder / "4.txt").write_bytes(b"caf\xe9")
    return ingest(folder, place / "out")


@pytest.mark.parametrize("name", ROWS)
def test_rows_without_an_image_are_dead_letters(ran: Ran, name: str) -> None:
    message = ROWS[name][1]
    found = [letter for letter in ran.letters if message in letter["error"]]
    assert found, [letter["error"] for letter in ran.letters]
    assert all(letter["reason"] == "bad_record" for letter in found)
    assert all(letter["position"] >= 6 for letter in found)


def test_bad_captions_and_images(ran: Ran) -> None:
    reasons = {letter["position"]: letter["reason"] for letter in ran.letters}
    assert reasons[3] == "bad_record"
    assert reasons[4] == "bad_utf8"
    assert reasons[5] == "not_an_image"


def test_nothing_is_lost_or_doubled(ran: Ran) -> None:
    assert ran.positions == [0, 1, 2]
    assert sum(ran.rejected.values()) == len(ran.letters) == len(ROWS) + 3


def test_csv_captions(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.png").write_bytes(picture(seed=n))
    lines = [
        b"file_name,text",
        b'0.png,"a ""dog"", running"',
        b"1.png,caf\xe9",
        b"2.png",
        b"3.png,x,y",
    ]
    (folder / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    ran = ingest(folder, tmp_path / "out")
    assert ran.records is not None
    assert ran.positions == [0, 3]
    assert ran.records["texts"][0].as_py() == [{"key": "text", "text": 'a "dog", running'}]
    assert [(x["position"], x["reason"]) for x in ran.letters] == [(1, "bad_utf8")]
    assert ran.rejected == {"bad_utf8": 1, "empty_text": 1}
