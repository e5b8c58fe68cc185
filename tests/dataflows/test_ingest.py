"""`dataflows run ingest` through the real command: digests, re-runs, replay, real data."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.dataset import open_dataset
from schemas.manifest import Manifest
from schemas.storage import storage
from tests.bad_input.command import dataflows, ingest, rows_of
from tests.bad_input.making import envelope, jsonl, link, picture, png, sample, tar, wat


@pytest.fixture(autouse=True)
def checksum_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))


def digest_of(output: Path) -> str:
    return Manifest.load(storage(str(output / "records"))).digest


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A directory with a file of each format that is not a folder of images."""
    pool = tmp_path / "pool"
    pool.mkdir()
    jsonl(pool / "a.jsonl", [{"url": f"http://a/{n}", "text": f"dog {n}"} for n in range(50)])
    wat(pool / "b.wat.gz", [envelope([link(f"/{n}.jpg", f"cat {n}")]) for n in range(50)])
    tar(pool / "c.tar", [member for n in range(9) for member in sample(f"s{n}", n)])
    table = pa.table({"URL": [f"http://d/{n}" for n in range(90)], "TEXT": ["bird"] * 90})
    pq.write_table(table, pool / "d.parquet", row_group_size=30)
    return pool


def test_every_format_in_one_run(mixed: Path, tmp_path: Path) -> None:
    ran = ingest(mixed, tmp_path / "out", "licence=CC0-1.0")
    assert ran.records is not None
    assert ran.records["file"].to_pylist() == [0] * 50 + [1] * 50 + [2] * 9 + [3] * 90
    manifest = open_dataset(str(ran.output / "records")).manifest
    assert [Path(pin["path"]).name for pin in manifest.inputs] == [
        "a.jsonl", "b.wat.gz", "c.tar", "d.parquet",
    ]  # fmt: skip
    assert all(pin["checksum"].startswith("blake2b-256:") for pin in manifest.inputs)
    assert manifest.licence == ["CC0-1.0"]
    assert manifest.stats["records"] == 199
    assert manifest.stats["with_image"] == 9
    assert sum(manifest.stats["read_as"].values()) == 4
    assert ran.said.count("reading ") == 4  # the columns chosen are said
    assert "columns.url=URL columns.text=TEXT" in ran.said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_digests_do_not_depend_on_workers_or_places(
    mixed: Path, tmp_path: Path, workers: str
) -> None:
    first = ingest(mixed, tmp_path / "out", "unit_bytes=100")
    moved = mixed.rename(tmp_path / "elsewhere")
    again = ingest(moved, tmp_path / "again", "unit_bytes=100", "--workers", workers)
    assert digest_of(first.output) == digest_of(again.output)


def test_limit_is_a_number_of_records_of_each_input(mixed: Path, tmp_path: Path) -> None:
    ran = ingest(mixed, tmp_path / "out", "--limit", "5")
    assert ran.records is not None
    assert ran.records["file"].to_pylist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5


def test_a_finished_run_is_found_finished_without_hashing(tmp_path: Path) -> None:
    source = tmp_path / "big.parquet"
    table = pa.table({"url": [f"http://a/{n}" for n in range(300_000)], "text": ["dog"] * 300_000})
    pq.write_table(table, source, compression="none")
    output = tmp_path / "out"
    time.sleep(2.1)  # a file of just now is not remembered
    ingest(source, output)
    started = time.monotonic()
    code, said = dataflows("run", "ingest", f"input={source}", f"output={output}")
    assert (code, "finished" in said) == (0, True)
    assert time.monotonic() - started < 3
    code, said = dataflows("plan", "ingest", f"input={source}", f"output={output}")
    assert code == 0


def test_replay_of_images_with_other_limits(tmp_path: Path) -> None:
    images = [picture(seed=1), png(300, 300), b"<html>", png(200, 200)]
    table = pa.table({"image": pa.array(images), "text": ["a", "b", "c", "d"]})
    pq.write_table(table, tmp_path / "a.parquet")
    ran = ingest(tmp_path / "a.parquet", tmp_path / "out", "images.max_pixels=10000")
    assert ran.rejected == {"image_too_large": 2, "not_an_image": 1}
    before = digest_of(ran.output)
    code, said = dataflows("replay", f"{ran.output}/records", "images.max_pixels=50000")
    assert code == 0, said
    assert "1 rows before, 2 now, 2 dead letters left" in said
    rows = rows_of(ran.output / "records")
    assert sorted(rows["position"].to_pylist()) == [0, 3]
    assert [image["bytes"] for image in rows["image"].to_pylist()] == [images[0], images[3]]
    manifest = open_dataset(str(ran.output / "records")).manifest
    assert manifest.parents[0] == {"name": "records", "digest": before}
    letters = rows_of(ran.output / "records.dead_letters").to_pylist()
    assert sorted(x["position"] for x in letters) == [1, 2]
    # And once more: limits given before still hold.
    code, said = dataflows("replay", f"{ran.output}/records", "images.max_bytes=1000000")
    assert code == 0, said
    assert "2 rows before, 2 now, 2 dead letters left" in said
    code, said = dataflows("replay", f"{ran.output}/records", "images.max_pixels=90000")
    assert code == 0, said
    assert "2 rows before, 3 now, 1 dead letters left" in said


def test_replay_of_lines_and_envelopes(tmp_path: Path) -> None:
    """A record limit that was too small, and lines that stay what they are."""
    long = {"url": "http://a/long", "text": "x" * 5000}
    jsonl(tmp_path / "a.jsonl", [{"url": "http://a/1", "text": "dog"}, long, b"{bad", b"[]"])
    wat(tmp_path / "b.wat.gz", [envelope([link("/a.jpg")]), envelope("none")])
    source = f"{tmp_path}/a.jsonl,{tmp_path}/b.wat.gz"
    ran = ingest(source, tmp_path / "out", "max_record_bytes=4000")
    assert ran.rejected == {"bad_record": 4}
    code, said = dataflows("replay", f"{ran.output}/records", "max_record_bytes=100000")
    assert code == 0, said
    rows = rows_of(ran.output / "records")
    assert rows["url"].to_pylist() == ["http://a/1", "http://example.org/a.jpg", "http://a/long"]
    assert rows["file"].to_pylist() == [0, 1, 0]
    assert rows["position"].to_pylist() == [0, 0, 1]
    left = rows_of(ran.output / "records.dead_letters").to_pylist()
    assert sorted((Path(x["source"]).name, x["position"]) for x in left) == [
        ("a.jsonl", 2), ("a.jsonl", 3), ("b.wat.gz", 1),
    ]  # fmt: skip


def test_what_a_reader_found_wrong_stays_wrong(tmp_path: Path) -> None:
    links = [link("data:image/png;base64,x"), link("/a.jpg")]
    ran = ingest(wat(tmp_path / "a.wat.gz", [envelope(links)]), tmp_path / "out")
    assert ran.rejected == {"bad_record": 1}
    code, said = dataflows("replay", f"{ran.output}/records")
    assert code == 0, said
    assert "1 rows before, 1 now, 1 dead letters left" in said
    (letter,) = rows_of(ran.output / "records.dead_letters").to_pylist()
    assert (letter["reason"], letter["error"]) == (
        ran.letters[0]["reason"],
        ran.letters[0]["error"],
    )


def test_replay_knows_its_settings(tmp_path: Path) -> None:
    ran = ingest(jsonl(tmp_path / "a.jsonl", [{"url": "u", "text": "dog"}, b"{"]), tmp_path / "out")
    code, said = dataflows("replay", f"{ran.output}/records", "columns.text=x")
    assert (code, "not a setting of replaying records" in said) == (2, True)


REAL = {
    "tuxpaint-captions/images_captions.parquet": (
        ("columns.text=captions", "columns.text_format=json"), 600, 600,
    ),
    "openclipart-alttext/images_alttext.parquet": (
        ("columns.text=title,description,keywords",), 600, 600,
    ),
    "web-alttext-en/alttext.jsonl.gz": ((), 5000, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_data(shared_data: Path, tmp_path: Path, name: str) -> None:
    settings, rows, images = REAL[name]
    ran = ingest(shared_data / name, tmp_path / "out", *settings)
    assert ran.records is not None
    assert ran.records.num_rows == rows
    assert ran.records["image"].null_count == rows - images
    assert ran.letters == []
    assert ran.rejected == {}
