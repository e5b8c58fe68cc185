"""Folders of images with captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.ingest import IngestOptions, find, pin_sources
from tests.bad_input.making import jsonl, picture
from tests.curation.ingest.reading import whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images in two directories, captioned in every way."""
    root = tmp_path / "pictures"
    (root / "b").mkdir(parents=True)
    for n, name in enumerate(["0.jpg", "1.PNG", "2.webp", "b/3.gif", "b/4.bmp", "b/5.tiff"]):
        kind = {"jpg": "JPEG", "tiff": "TIFF"}.get(name[-3:].strip("."), name.split(".")[1].upper())
        kind = "TIFF" if name.endswith("tiff") else kind
        (root / name).write_bytes(picture(kind, seed=n))
    (root / "0.txt").write_text(" a dog\n")
    (root / "b" / "3.txt").write_text("ein Hund")
    (root / "unrelated.txt").write_text("no image of this name")
    (root / "_SUCCESS").touch()
    jsonl(root / "metadata.jsonl", [
        {"file_name": "1.PNG", "text": {"en": "cat", "fr": "chat"}, "url": "http://a/1"},
        {"file_name": "0.jpg", "text": "the same dog"},
        {"file_name": "1.PNG", "text": "another cat"},
        {"file_name": "b/5.tiff", "text": "bird"},
    ])  # fmt: skip
    (root / "b" / "metadata.csv").write_text("file_name,caption\n./4.bmp,fish\n5.tiff,oiseau\n")
    return root


EXPECTED = {
    "0.jpg": [("txt", "a dog"), ("text", "the same dog")],
    "1.PNG": [("en", "cat"), ("fr", "chat"), ("text", "another cat")],
    "b/3.gif": [("txt", "ein Hund")],
    "b/4.bmp": [("caption", "fish")],
    "b/5.tiff": [("caption", "oiseau"), ("text", "bird")],
}


@pytest.mark.parametrize("unit_bytes", [1, 10_000, 2**28])
def test_captions_of_every_kind(folder: Path, unit_bytes: int) -> None:
    read = whole(folder, IngestOptions(unit_bytes=unit_bytes))
    paths = [image["path"] for image in read.table["image"].to_pylist()]
    assert dict(zip(paths, read.texts(), strict=True)) == EXPECTED
    assert read.table["position"].to_pylist() == [0, 1, 3, 4, 5]
    assert read.ledger.count("record", "rejected", "empty_text") == 1
    assert read.letters == []
    assert read.table["url"].to_pylist()[1] == "http://a/1"
    assert set(read.table["file"].to_pylist()) == {0}


def test_one_pin_for_the_folder_covers_each_file(folder: Path) -> None:
    first = pin_sources(find(str(folder)))
    assert len(first.pins) == 1
    assert first.pins[0].path == str(folder)
    seen = {first.pins[0].checksum}
    for name in ("0.jpg", "0.txt", "b/metadata.csv", "metadata.jsonl"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data + b"\n")
        seen.add(pin_sources(find(str(folder))).pins[0].checksum)
    assert len(seen) == 5
    (folder / "_notes").write_text("not part of it")
    assert pin_sources(find(str(folder))).pins[0].checksum in seen


def test_the_pin_does_not_depend_on_where_it_lies(folder: Path) -> None:
    before = pin_sources(find(str(folder))).pins[0].checksum
    moved = folder.rename(folder.parent / "elsewhere")
    assert pin_sources(find(str(moved))).pins[0].checksum == before
