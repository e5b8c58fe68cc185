"""Full disks, killed runs, edited and newer datasets, inputs that change."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.ingest import IngestOptions, find, pin_sources, plan, read
from dataflows.cli import main
from schemas.commit import commit
from schemas.dataset import open_dataset
from schemas.errors import InputError
from schemas.manifest import Manifest
from schemas.storage import storage
from tests.bad_input.command import dataflows, ingest, rows_of
from tests.bad_input.making import jsonl, picture
from tests.faults import inject
from tests.support import ROOT


def source_of(place: Path, rows: int = 30) -> Path:
    lines: list[dict[str, str] | bytes] = [
        {"url": f"http://example.org/{n}.jpg", "text": f"dog {n}"} for n in range(rows)
    ]
    return jsonl(place / "pool.jsonl", [*lines, b"{bad"])


def committed(place: Path) -> Path:
    """A committed records dataset of 30 rows, with one dead letter."""
    ran = ingest(source_of(place), place / "out")
    assert ran.code == 0
    return place / "out" / "records"


@pytest.mark.slow
def test_a_full_disk_at_any_moment(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    digest = Manifest.load(storage(str(committed(tmp_path)))).digest
    record: list[str] = []
    with inject.installed(record=record):
        ingest(source, tmp_path / "counted")
    step = max(1, len(record) // 8)
    for number in range(1, len(record) + 1, step):
        output = tmp_path / f"full-{number}"
        with inject.installed(kill_at=number, mode="enospc"):
            code, said = dataflows("run", "ingest", f"input={source}", f"output={output}")
        if code != 0:  # some operations only tidy up, and are done again by the next command
            assert code == 6, said
            assert "the disk is full" in said
        code, said = dataflows("run", "ingest", f"input={source}", f"output={output}")
        assert code == 0, said
        assert Manifest.load(storage(str(output / "records"))).digest == digest


def test_no_permission(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    (tmp_path / "file").write_text("a file where a directory is needed")
    code, said = dataflows("run", "ingest", f"input={source}", f"output={tmp_path}/file/out")
    assert code == 6, said
    assert "a file stands where a directory is needed" in said


def test_a_second_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    records = committed(tmp_path)
    before = (records / "manifest.json").read_bytes()
    code, said = dataflows(
        "run", "ingest", f"input={tmp_path}/pool.jsonl", f"output={tmp_path}/out", "limit=3"
    )
    assert code == 4
    assert "holds dataset" in said
    assert "limit was null, is 3" in said
    assert (records / "manifest.json").read_bytes() == before


def test_a_second_run_over_changed_input_is_refused_until_told(tmp_path: Path) -> None:
    committed(tmp_path)
    source = source_of(tmp_path, rows=31)
    words = ("run", "ingest", f"input={source}", f"output={tmp_path}/out")
    code, said = dataflows(*words)
    assert code == 4
    assert "its input files changed" in said
    code, said = dataflows(*words, "--replace")
    assert code == 0, said
    assert rows_of(tmp_path / "out" / "records").num_rows == 31


def test_the_same_run_again_opens_nothing(tmp_path: Path) -> None:
    records = committed(tmp_path)
    for shard in (records / "data").iterdir():
        os.rename(shard, shard.with_suffix(".hidden"))  # a shard that is opened is missed
    started = time.monotonic()
    code, said = dataflows(
        "run", "ingest", f"input={tmp_path}/pool.jsonl", f"output={tmp_path}/out"
    )
    assert code == 0
    assert "finished, 30 rows" in said
    assert time.monotonic() - started < 3


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(records: Path) -> None:
        head = json.loads((records / "manifest.json").read_text())
        change(head)
        (records / "manifest.json").write_text(json.dumps(head, sort_keys=True))

    return apply


def newer_schema(records: Path) -> None:
    manifest = Manifest.load(storage(str(records)))
    newer = dataclasses.replace(manifest, schema={"name": "records", "version": 99})
    (records / "manifest.json").write_bytes(newer.sealed().to_json())


def other_schema(records: Path) -> None:
    manifest = Manifest.load(storage(str(records)))
    other = dataclasses.replace(manifest, schema={"name": "recipes", "version": 1})
    (records / "manifest.json").write_bytes(other.sealed().to_json())


def flip(records: Path) -> None:
    (shard,) = (records / "data").iterdir()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)


def lose(records: Path) -> None:
    (shard,) = (records / "data").iterdir()
    shard.unlink()


def stranger(records: Path) -> None:
    (records / "data" / "extra.parquet").write_bytes(b"PAR1")


def cut(records: Path) -> None:
    head = (records / "manifest.json").read_bytes()
    (records / "manifest.json").write_bytes(head[: len(head) // 2])


# name: (what is done to a committed dataset, exit code of verify, what is said)
SPOILT: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "rows edited": (edit(lambda h: h["totals"].update(rows=31)), 1, "edited"),
    "counts edited": (edit(lambda h: h["counts"][0].update(count=99)), 1, "edited"),
    "config edited": (edit(lambda h: h["config"].update(limit=5)), 1, "edited"),
    "licence edited": (edit(lambda h: h["licence"].append("CC0")), 1, "edited"),
    "digest edited": (edit(lambda h: h.update(digest="0" * 64)), 1, "edited"),
    "newer format": (edit(lambda h: h.update(format=99)), 3, "99"),
    "newer schema": (newer_schema, 3, "99"),
    "unknown schema": (other_schema, 3, "recipes"),
    "manifest cut": (cut, 1, "manifest.json"),
    "shard changed": (flip, 1, "bytes, expected"),
    "shard gone": (lose, 1, "missing"),
    "stranger": (stranger, 1, "extra.parquet"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_verify_names_what_is_wrong(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, code, message = SPOILT[name]
    records = committed(tmp_path)
    assert dataflows("verify", str(records))[0] == 0
    spoil(records)
    capsys.readouterr()
    found = main(["verify", str(records)])
    said = "".join(capsys.readouterr())
    assert found == code, said
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "code"), [("newer schema", 3), ("newer format", 3), ("rows edited", 5)]
)
def test_a_recipe_refuses_such_a_dataset(tmp_path: Path, name: str, code: int) -> None:
    records = committed(tmp_path)
    SPOILT[name][0](records)
    found, said = dataflows(
        "run", "metaclip2", f"input={records}", f"output={tmp_path}/next", "p=0.06"
    )
    assert found == code, said
    assert SPOILT[name][2] in said


def test_a_directory_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    records = committed(tmp_path)
    (records / "manifest.json").unlink()
    assert dataflows("verify", str(records))[0] == 3
    with pytest.raises(InputError, match="not a committed dataset"):
        open_dataset(str(records))


@pytest.mark.parametrize("change", ["grown", "same size", "gone", "touched"])
def test_an_input_that_changes_after_it_was_pinned(tmp_path: Path, change: str) -> None:
    source = source_of(tmp_path)
    options = IngestOptions()
    (unit,) = plan(pin_sources(find(str(source))), options)
    data = source.read_bytes()
    if change == "grown":
        source.write_bytes(data + b'{"url": "http://a/1", "text": "x"}\n')
    elif change == "same size":
        source.write_bytes(data.replace(b"dog 7", b"cat 7"))
    elif change == "gone":
        source.unlink()
    else:
        os.utime(source, ns=(1, 1))
    if change == "touched":  # the content decides, not the time
        assert sum(outcome.table.num_rows for outcome in read(unit, options)) == 30
        return
    expected = "no such file" if change == "gone" else "has changed since it was pinned"
    with pytest.raises(InputError, match=expected):
        list(read(unit, options))


def test_an_input_that_changes_while_it_is_read(tmp_path: Path) -> None:
    source = tmp_path / "big.jsonl"
    jsonl(source, [{"url": f"http://a/{n}", "text": "x" * 200} for n in range(40_000)])
    options = IngestOptions()
    (unit,) = plan(pin_sources(find(str(source))), options)
    outcomes = read(unit, options)
    next(outcomes)
    with source.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(InputError, match="has changed since it was pinned"):
        list(outcomes)


@pytest.mark.parametrize("change", ["image", "caption", "table"])
def test_a_folder_that_changes_after_it_was_pinned(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture())
    (folder / "a.txt").write_text("dog")
    jsonl(folder / "metadata.jsonl", [{"file_name": "a.png", "text": "dog"}])
    options = IngestOptions()
    (unit,) = plan(pin_sources(find(str(folder))), options)
    name = {"image": "a.png", "caption": "a.txt", "table": "metadata.jsonl"}[change]
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(InputError, match=f"{name} has changed since it was pinned"):
        list(read(unit, options))


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_digest(tmp_path: Path) -> None:
    source = tmp_path / "images.parquet"
    rows = [{"bytes": picture(size=(200, 200), seed=n), "path": None} for n in range(160)]
    pq.write_table(pa.table({"image": rows, "text": ["dog"] * 160}), source, row_group_size=20)
    words = (f"input={source}", "unit_bytes=1")
    ingest(source, tmp_path / "whole", "unit_bytes=1")
    expected = Manifest.load(storage(str(tmp_path / "whole" / "records"))).digest
    output = tmp_path / "out"
    command = [sys.executable, "-m", "dataflows", "run", "ingest", *words, f"output={output}"]
    for _ in range(2):
        process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 60
        before = len(list(output.rglob("*.parquet")))
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(output.rglob("*.parquet"))) > before + 1:
                break
            time.sleep(0.02)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError as error:
            assert error.errno == errno.ESRCH
        process.wait()
    code, said = dataflows("run", "ingest", *words, f"output={output}")
    assert code == 0, said
    assert Manifest.load(storage(str(output / "records"))).digest == expected


@pytest.mark.parametrize("schema", ["counts", "dead_letters"])
def test_a_dataset_of_another_schema_is_no_input(tmp_path: Path, schema: str) -> None:
    if schema == "dead_letters":
        place = committed(tmp_path).with_name("records.dead_letters")
    else:
        place = tmp_path / "counts"
        commit(storage(str(place)), Manifest({"name": "counts", "version": 1}), [])
    code, said = dataflows(
        "run", "metaclip2", f"input={place}", f"output={tmp_path}/next", "p=0.06"
    )
    assert code == 3, said
    assert schema in said
