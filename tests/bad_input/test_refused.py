"""Inputs and settings that are refused as a whole: exit code, one line, nothing committed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bad_input.command import dataflows
from tests.bad_input.making import jsonl, picture, sample, tar, warc_record

Row = {"url": "http://example.org/1.jpg", "text": "a dog"}
Case = tuple[Callable[[Path], list[str]], int, str]


def good(place: Path) -> str:
    return f"input={jsonl(place / 'good.jsonl', [Row])}"


def content(name: str, data: bytes) -> Callable[[Path], list[str]]:
    def make(place: Path) -> list[str]:
        (place / name).write_bytes(data)
        return [f"input={place / name}"]

    return make


def parquet(*settings: str, **columns: pa.Array) -> Callable[[Path], list[str]]:
    def make(place: Path) -> list[str]:
        pq.write_table(pa.table(columns), place / "a.parquet")
        return [f"input={place / 'a.parquet'}", *settings]

    return make


def setting(*words: str) -> Callable[[Path], list[str]]:
    return lambda place: [good(place), *words]


def as_parquet(**columns: list[object]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


PARQUET = as_parquet(url=["http://a/1"] * 50, text=["dog"] * 50)
URL, TEXT = pa.array(["http://a/1"]), pa.array(["dog"])
LINES = b'{"url": "http://a/1", "text": "dog"}\n' * 50


def folder_of_images(*captions: tuple[str, bytes]) -> Callable[[Path], list[str]]:
    def make(place: Path) -> list[str]:
        folder = place / "pictures"
        folder.mkdir()
        (folder / "a.png").write_bytes(picture())
        for name, data in captions:
            (folder / name).write_bytes(data)
        return [f"input={folder}"]

    return make


def tar_of(members: list[tuple[str, bytes]], *settings: str) -> Callable[[Path], list[str]]:
    return lambda place: [f"input={tar(place / 'a.tar', members)}", *settings]


def empty_directory(place: Path) -> list[str]:
    (place / "empty").mkdir()
    return [f"input={place / 'empty'}"]


def one_empty_among_others(place: Path) -> list[str]:
    (place / "pool").mkdir()
    jsonl(place / "pool" / "a.jsonl", [Row])
    (place / "pool" / "b.jsonl").touch()
    return [f"input={place / 'pool'}"]


def directory_of_unknowns(place: Path) -> list[str]:
    (place / "pool").mkdir()
    (place / "pool" / "a.csv").write_text("url,text\n")
    return [f"input={place / 'pool'}"]


INPUT: dict[str, Case] = {
    "absent file": (lambda p: [f"input={p}/gone.jsonl"], 3, "gone.jsonl: no such file"),
    "absent directory": (lambda p: [f"input={p}/gone/"], 3, "no such file"),
    "pattern without files": (lambda p: [f"input={p}/*.parquet"], 3, "matches no file"),
    "one of two absent": (lambda p: [f"{good(p)},{p}/b.jsonl"], 3, "b.jsonl: no such file"),
    "empty input": (lambda p: ["input="], 3, "input= is empty"),
    "input of commas": (lambda p: ["input=,,"], 3, "input= is empty"),
    "unknown protocol": (lambda p: ["input=gopher://a/b.parquet"], 3, "gopher"),
    "directory without files": (empty_directory, 3, "holds no file to read (0 files"),
    "directory of unknown files": (directory_of_unknowns, 3, "holds no file to read (1 files"),
    "a device": (lambda p: ["input=/dev/null"], 3, "/dev/null is not a regular file"),
    "empty file": (content("a.jsonl", b""), 3, "a.jsonl is empty (0 bytes)"),
    "empty Parquet": (content("a.parquet", b""), 3, "a.parquet is empty (0 bytes)"),
    "one empty among others": (one_empty_among_others, 3, "b.jsonl is empty (0 bytes)"),
    "white space": (content("a.jsonl", b"\n \n"), 3, "nothing but white space"),
    "empty gzip": (content("a.jsonl.gz", gzip.compress(b"")), 3, "nothing but white space"),
    "gzip in name only": (content("a.jsonl.gz", b"\x1f\x8bdog"), 3, "nothing in it can be read"),
    "bzip2 cut": (content("a.jsonl.bz2", bz2.compress(LINES)[:20]), 3, "bzip2 stream cannot"),
    "xz cut": (content("a.jsonl.xz", lzma.compress(LINES)[:20]), 3, "xz stream cannot"),
    "zstd damaged": (content("a.jsonl.zst", b"\x28\xb5\x2f\xfd\xff\xff"), 3, "zstd stream cannot"),
    "CSV": (content("a.csv", b"url,text\nhttp://a/1,dog\n"), 3, "is of no known format"),
    "HTML": (content("a.html", b"<!DOCTYPE html>"), 3, "is of no known format"),
    "JSON array": (content("a.json", b'[{"url": "x"}]'), 3, "convert it with jq -c '.[]'"),
    "single image": (content("a.png", picture()), 3, "is a single image: give its directory"),
    "JSONL of numbers": (content("a.jsonl", b"1\n2\n3\n"), 3, "none of its first 3 lines"),
    "Parquet cut": (content("a.parquet", PARQUET[:-100]), 3, "the Parquet footer cannot be read"),
    "Parquet head only": (content("a.parquet", b"PAR1"), 3, "the Parquet footer cannot be read"),
    "Parquet without head": (content("a.parquet", PARQUET[8:]), 3, "does not begin with PAR1"),
    "Parquet footer garbled": (
        content("a.parquet", PARQUET[:-60] + b"\xff" * 40 + PARQUET[-20:]),
        3,
        "the Parquet footer cannot be read",
    ),
    "encrypted Parquet": (content("a.parquet", b"PARE" + PARQUET), 3, "is encrypted Parquet"),
    "Parquet named JSONL": (
        lambda p: [*content("a.jsonl", PARQUET)(p), "format=jsonl"],
        3,
        "the content of",
    ),
    "Parquet without rows": (
        parquet(url=pa.array([], pa.string()), text=pa.array([], pa.string())),
        3,
        "the input holds no rows",
    ),
    "WARC, not WAT": (
        content("a.warc.gz", gzip.compress(warc_record(b"GET /", "request"))),
        3,
        "give the .wat.gz files",
    ),
    "no sample in a tar": (tar_of([("README", b"x")]), 3, "holds no sample"),
    "tar without captions": (tar_of([("a.jpg", picture("JPEG"))]), 3, "no .txt and no caption"),
    "tar without the column": (
        tar_of(sample("a"), "columns.text=alt"),
        3,
        "columns.text=alt: the first 1 samples",
    ),
    "folder without captions": (folder_of_images(), 3, "1 images and no captions"),
    "captions without file_name": (
        folder_of_images(("metadata.jsonl", b'{"text": "dog"}\n')),
        3,
        "has no column file_name",
    ),
    "captions without text": (
        folder_of_images(("metadata.csv", b"file_name,width\na.png,3\n")),
        3,
        "no column that is known to hold texts",
    ),
    "folder of a file": (setting("format=folder"), 3, "is a file: give the directory"),
}

COLUMNS: dict[str, Case] = {
    "no text column": (parquet(url=URL, label=TEXT), 3, "It has: url, label. Name yours with"),
    "no image column": (parquet(link=URL, text=TEXT), 3, "no column that names images"),
    "no columns": (parquet(a=URL), 3, "no column that is known to hold texts"),
    "wrong case": (parquet("columns.text=text", URL=URL, TEXT=TEXT), 3,
                   "Did you mean columns.text=TEXT?"),
    "misspelt": (parquet("columns.text=captoin", url=URL, caption=TEXT), 3,
                 "Did you mean columns.text=caption?"),
    "one of several absent": (parquet("columns.text=text,alt", url=URL, text=TEXT), 3,
                              "columns.text=alt: "),
    "absent URL column": (parquet("columns.url=link", url=URL, text=TEXT), 3, "columns.url=link"),
    "absent score column": (parquet("columns.score=s", url=URL, text=TEXT), 3, "columns.score=s"),
    "absent id column": (parquet("columns.id=key", url=URL, text=TEXT), 3, "columns.id=key"),
    "absent JSONL column": (setting("columns.text=alt"), 3, "It has: url, text"),
    "text is a number": (parquet(url=URL, text=pa.array([1])), 3,
                         "column 'text' is int64, which holds no text"),
    "text is a list of numbers": (parquet(url=URL, text=pa.array([[1]])), 3, "holds no text"),
    "text is a struct with numbers": (
        parquet(url=URL, text=pa.array([{"en": "dog", "n": 1}])), 3, "holds no text"),
    "URL is a number": (parquet("columns.url=url", url=pa.array([1]), text=TEXT), 3,
                        "columns.url=url is int64, expected a string"),
    "score is text": (parquet("columns.score=s", url=URL, text=TEXT, s=TEXT), 3,
                      "columns.score=s is string, expected a number"),
    "image is text": (parquet("columns.image=url", url=URL, text=TEXT), 3,
                      "columns.image=url is string, expected binary or struct<bytes, path>"),
    "id is a float": (parquet("columns.id=i", i=pa.array([0.5]), text=TEXT), 3,
                      "columns.id=i is double, expected a string, binary or integer"),
    "SHA-256 of 20 bytes": (
        parquet("columns.sha256=h", url=URL, text=TEXT, h=pa.array([b"x" * 20], pa.binary(20))), 3,
        "expected 64 hex digits or 32 bytes"),
    "image column of JSONL": (setting("columns.image=text"), 2, "without image bytes"),
}  # fmt: skip

SETTINGS: dict[str, Case] = {
    "no input": (lambda p: [], 2, "input: must be given"),
    "unknown setting": (setting("inptu=x"), 2, "inptu: unknown setting of ingest; did you mean"),
    "unknown column": (setting("columns.txt=x"), 2, "did you mean columns.text?"),
    "unknown format": (setting("format=avro"), 2, "format='avro'"),
    "unknown text format": (setting("columns.text_format=xml"), 2, "text_format='xml'"),
    "limit 0": (setting("--limit", "0"), 2, "limit=0"),
    "negative limit": (setting("limit=-3"), 2, "limit=-3"),
    "limit in words": (setting("limit=many"), 2, "limit='many'"),
    "no pixels": (setting("images.max_pixels=0"), 2, "images.max_pixels=0"),
    "no time": (setting("images.seconds=0"), 2, "images.seconds=0"),
    "little memory": (setting("images.memory=1000"), 2, "images.memory=1000"),
    "no unit": (setting("unit_bytes=0"), 2, "unit_bytes=0"),
    "no value": (setting("format"), 2, "settings are given as key=value"),
    "twice": (setting("format=jsonl", "format=wat"), 2, "format is given twice"),
    "unknown runner": (setting("--runner", "slurm"), 2, "slurm"),
    "no workers": (setting("--workers", "0"), 2, "worker"),
    "absent settings file": (setting("--config", "/nowhere.yaml"), 2, "no such file"),
}

CASES = {**INPUT, **COLUMNS, **SETTINGS}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_code_and_message(tmp_path: Path, name: str) -> None:
    make, code, message = CASES[name]
    output = tmp_path / "out"
    found, said = dataflows("run", "ingest", f"output={output}", *make(tmp_path))
    assert message in said
    assert found == code
    assert not (output / "records" / "manifest.json").exists()
    lines = [line for line in said.splitlines() if line.startswith("dataflows: error: ")]
    assert len(lines) == 1
    assert said.splitlines()[-1] == lines[0]  # one line, and the last
