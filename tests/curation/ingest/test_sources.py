"""Finding and pinning: each file once, in order, by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.ingest import IngestOptions, files, find, grouped, pin_sources, plan
from curation.ingest.files import File
from curation.ingest.memory import memory_path, recall, remember
from schemas.errors import InputError
from tests.bad_input.making import jsonl
from tests.curation.ingest.reading import whole
from tests.schemas import servers

ROW = {"url": "http://a/1", "text": "dog"}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Three data files, one of them below, and what is not data."""
    root = tmp_path / "pool"
    (root / "sub").mkdir(parents=True)
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl"):
        jsonl(root / name, [{**ROW, "url": f"http://a/{name}"}])
    (root / "_SUCCESS").touch()
    (root / ".hidden.jsonl").write_text("x")
    (root / "stats.csv").write_text("x")
    return root


def names(sources: list) -> list[str]:
    return [Path(source.path).name for source in sources]


def test_ways_to_name_the_same_files(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pool)
    for given in (
        str(pool), f"{pool}/", f"{pool}/**/*.jsonl", f"file://{pool}", ".",
        f"{pool}/sub, {pool}/*.jsonl", f"b.jsonl,{pool}/a.jsonl,sub,sub/c.jsonl,./b.jsonl",
        [f"{pool}/sub/c.jsonl", str(pool)],
    ):  # fmt: skip
        assert names(find(given)) == ["a.jsonl", "b.jsonl", "c.jsonl"], given


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    for name in ("a[1].jsonl", "b,c.jsonl", "d e.jsonl", "ü.jsonl"):
        jsonl(tmp_path / name, [ROW])
        assert names(find(str(tmp_path / name))) == [name]


def test_pins_are_checksums_of_the_content(pool: Path) -> None:
    pinned = pin_sources(find(str(pool)))
    for pin in pinned.pins:
        data = Path(pin.path).read_bytes()
        digest = hashlib.blake2b(data, digest_size=32).hexdigest()
        assert (pin.bytes, pin.checksum) == (len(data), f"blake2b-256:{digest}")


def test_records_know_their_file(pool: Path) -> None:
    read = whole(pool)
    assert read.table["file"].to_pylist() == [0, 1, 2]
    assert read.table["url"].to_pylist()[2] == "http://a/sub/c.jsonl"


def test_what_was_hashed_is_remembered(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in pool.rglob("*.jsonl"):
        os.utime(path, (1, 1))
    before = pin_sources(find(str(pool))).pins
    hashed = []
    real = files.checksum
    monkeypatch.setattr(files, "checksum", lambda file: hashed.append(file) or real(file))
    assert pin_sources(find(str(pool))).pins == before
    assert hashed == []
    changed = pool / "a.jsonl"
    changed.write_bytes(changed.read_bytes().replace(b"dog", b"cat"))
    os.utime(changed, (1, 2))
    after = pin_sources(find(str(pool))).pins
    assert [file.path for file in hashed] == [str(changed)]
    assert after[0].checksum != before[0].checksum


def test_files_of_just_now_are_not_remembered(pool: Path) -> None:
    (source, *_) = find(str(pool))
    file = files.look(source.path)
    remember({file: "blake2b-256:0"})
    assert recall([file]) == {}
    old = File(file.path, file.bytes, "stat:1:1000")
    remember({old: "blake2b-256:0"})
    assert list(recall([old]).values()) == ["blake2b-256:0"]


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_a_damaged_memory_is_no_fault(pool: Path, content: bytes) -> None:
    memory_path().parent.mkdir(parents=True)
    memory_path().write_bytes(content)
    for path in pool.rglob("*.jsonl"):
        os.utime(path, (1, 1))
    assert len(pin_sources(find(str(pool))).pins) == 3


def test_small_inputs_share_a_unit(pool: Path) -> None:
    units = plan(pin_sources(find(str(pool))), IngestOptions())
    assert [len(group) for group in grouped(units, 10**6)] == [3]
    assert [len(group) for group in grouped(units, 1)] == [1, 1, 1]
    assert [len(group) for group in grouped(units, units[0].size + units[1].size)] == [2, 1]


def test_plans_are_the_same_each_time(pool: Path) -> None:
    pinned = pin_sources(find(str(pool)))
    first, again = (plan(pinned, IngestOptions()) for _ in range(2))
    assert [unit.to_json() for unit in first] == [unit.to_json() for unit in again]


@pytest.fixture(params=["s3", "gs", "memory"])
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """A place on an object store."""
    if request.param == "memory":
        yield "memory://ingest-tests"
        return
    server = servers.moto if request.param == "s3" else servers.gcs
    with server() as environment, servers.variables(environment):
        yield f"{request.param}://{servers.BUCKET}/ingest"


def test_object_stores(bucket: str, tmp_path: Path) -> None:
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"url": ["http://a/1"], "text": ["dog"]}), tmp_path / "b.parquet")
    jsonl(tmp_path / "a.jsonl", [ROW])
    fs, root = fsspec.core.url_to_fs(bucket)
    for name in ("a.jsonl", "b.parquet"):
        fs.pipe_file(f"{root}/{name}", (tmp_path / name).read_bytes())
    for given in (bucket, f"{bucket}/*", f"{bucket}/a.jsonl,{bucket}/b.parquet"):
        pinned = pin_sources(find(given))
        assert names(pinned.sources) == ["a.jsonl", "b.parquet"], given
    kinds = {pin.checksum.split(":")[0] for pin in pinned.pins}
    assert kinds == ({"blake2b-256"} if bucket.startswith("memory") else {"etag"})
    read = whole(bucket)
    assert read.table.num_rows == 2
    (unit, _) = read.units
    fs.pipe_file(f"{root}/a.jsonl", b'{"url": "http://a/9", "text": "cat"}\n')
    fs.invalidate_cache()
    with pytest.raises(InputError, match=r"a\.jsonl has changed since it was pinned"):
        files.unchanged(File(unit.path, unit.bytes, unit.stamp), unit.checksum)
    with pytest.raises(InputError, match="no such file"):
        find(f"{bucket}/gone.jsonl")
