"""Images read in place equal pyarrow's reading; what was changed after the commit is not read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.dataset import Dataset
from schemas.errors import IntegrityError
from schemas.table_schemas import CURATED, POOL, RECORDS
from tests.schemas import samples
from tests.support import ROOT
from tests.trainer.making import a_reader, made
from trainer import shards
from trainer.reader import Reader
from trainer.shards import Shards


def images(cells: list[bytes | None]) -> pa.Table:
    table = samples.curated(len(cells))
    kind = CURATED.arrow.field("image").type
    structs = [
        None if c is None else {"bytes": None if c == b"-" else c, "path": "p"} for c in cells
    ]
    at = table.schema.get_field_index("image")
    return CURATED.validate(table.set_column(at, "image", pa.array(structs, kind)))


CELLS = {
    "all": [bytes([i % 251]) * (i * 37 % 900) for i in range(200)],
    "equal lengths": [bytes([i % 251]) * 64 for i in range(200)],
    "some null": [
        None if i % 7 == 3 else b"-" if i % 11 == 5 else bytes([i]) * i for i in range(200)
    ],
    "none": [None] * 200,
    "pages of a megabyte": [os.urandom(300_000) if i % 3 else None for i in range(20)],
}


@pytest.mark.parametrize("name", CELLS)
def test_images_in_place_are_those_that_pyarrow_reads(tmp_path: Path, name: str) -> None:
    dataset = made(tmp_path / "d", CURATED, images(CELLS[name]))
    read = Shards(dataset)
    seen = 0
    for shard, entry in enumerate(dataset.shards()):
        for group in range(entry.row_groups):
            table = dataset.read_row_group(shard, group)
            wanted = [c and c["bytes"] for c in table["image"].to_pylist()]
            found = read.raw(shard, group, "image.bytes")
            assert found is not None, "the writer's layout is known"
            assert [v if v is None else bytes(v) for v in found] == wanted
            assert read.table(shard, group, ["text", "url"]).equals(table.select(["text", "url"]))
            seen += len(found)
    assert seen == len(CELLS[name])
    assert read.raw(0, 0, "text") is None and read.raw(0, 0, "nothing") is None


def test_another_layout_is_left_to_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from schemas import writer

    options = dict(writer._options("curated"))
    wanted = None
    for change in (
        {},
        {"compression": "zstd"},
        {"data_page_version": "2.0"},
        {"use_dictionary": True},
    ):
        monkeypatch.setattr("schemas.writer._options", lambda name, c=change: options | c)
        dataset = made(tmp_path / str(len(str(change))), CURATED, images(CELLS["some null"]))
        assert (Shards(dataset).raw(0, 0, "image.bytes") is None) == bool(change)
        reader = Reader(dataset, window=1, columns=["pair_id", "image"])
        rows = reader.lists(range(len(reader)))
        found = {p: c if c is None else bytes(c) for p, c in zip(*rows.values(), strict=True)}
        wanted = wanted or found
        assert found == wanted and len(found) == 200


@pytest.mark.parametrize("draw", [None, "image", "text"])
@pytest.mark.parametrize("window", [3, 90])
def test_lists_are_the_rows_that_take_gives(
    pool: Dataset, matched: Dataset, draw: str | None, window: int
) -> None:
    reader = a_reader(pool, matched, draw, window)
    rng = np.random.default_rng(1)
    for at in (range(100), rng.integers(0, len(reader), 80), [7, 7, 0], []):
        positions = np.array(at, np.int64)
        assert (
            reader.lists(positions)
            == a_reader(pool, matched, draw, window).take(positions).to_pydict()
        )
    held = set(reader._lists)
    reader.lists([len(reader) - 1], keep=False)
    assert set(reader._lists) == held


def test_views_outlive_the_reader(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(
        [{"image_id": bytes([i]) * 16, "texts": [], "image": {"bytes": bytes([i]) * 999, "path": None},
          "file": 0, "position": i} for i in range(200)],
        schema=pa.schema([pa.field(f.name, f.type) for f in RECORDS.arrow]),
    )  # fmt: skip
    dataset = made(tmp_path / "r", RECORDS, RECORDS.validate(table))
    values = Reader(dataset, columns=["image_id", "image"]).lists(range(200))
    for entry in dataset.shards():
        (tmp_path / "r" / entry.file).unlink()
    assert all(bytes(v) == i[:1] * 999 for i, v in zip(*values.values(), strict=True))


def test_a_shard_that_was_changed_is_not_read(tmp_path: Path) -> None:
    dataset = made(tmp_path / "p", POOL, samples.pool(300))
    path = tmp_path / "p" / dataset.shards()[0].file
    assert len(Reader(dataset, window=1000).lists(range(300))["text"]) == 300
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    calls: list[Any] = [
        lambda: Reader(dataset, window=1000).lists(range(300)),
        lambda: Reader(dataset, window=1000).take(range(300)),
        lambda: Shards(dataset).raw(0, 0, "text"),
    ]
    for call in calls:
        with pytest.raises(IntegrityError) as caught:
            call()
        assert str(path) in str(caught.value) and dataset.shards()[0].digest in str(caught.value)
        assert "it was changed after the commit" in str(caught.value)
    path.unlink()
    with pytest.raises(IntegrityError, match="is missing, but the manifest names it"):
        Reader(dataset, window=1000).lists(range(300))


def test_a_shard_is_hashed_once_and_opened_once(
    pool: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, opened = [], []
    digest, file = shards.hashlib.file_digest, pq.ParquetFile

    def spy_digest(handle: Any, name: str) -> Any:
        hashed.append(handle.name)
        return digest(handle, name)

    def spy_file(*args: Any, **more: Any) -> Any:
        opened.append(args)
        return file(*args, **more)

    monkeypatch.setattr(shards, "_hashed", set())
    monkeypatch.setattr("trainer.shards.hashlib.file_digest", spy_digest)
    first = Reader(pool, seed=3, window=90)
    len(first), first.locate([999])
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", spy_file)
    for reader in (first, Reader(pool, seed=3, window=90)):
        for k in range(0, 1000, 20):
            reader.lists(range(k, k + 20))
    count = len(pool.shards())
    assert len(hashed) == len(set(hashed)) == count
    assert len(opened) <= 3 * count, "of 50 batches a reader none opened a file that was open"


def test_importing_shards_loads_no_torch() -> None:
    code = "import sys, trainer.shards, trainer.sources.image_text; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
