"""Reading committed datasets."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dataset import Dataset, file_digest, open_dataset, put_blob, stored_digest
from schemas.errors import InputError, IntegrityError
from schemas.storage import Storage, storage
from tests.schemas import samples


@pytest.fixture
def dataset(root: Storage) -> Dataset:
    samples.committed(root, table=samples.pool(600), target_bytes=20_000)
    return open_dataset(root)


def test_rows_come_back_in_order(dataset: Dataset) -> None:
    table = samples.pool(600)
    assert len(dataset) == 600 == sum(s.rows for s in dataset.shards())
    assert pa.concat_tables(dataset.tables()).equals(table)
    assert dataset.schema.equals(table.schema, check_metadata=True)
    start = 0
    for i, shard in enumerate(dataset.shards()):
        expected = table.slice(start, shard.rows)
        assert dataset.read_shard(i).equals(expected)
        assert pa.concat_tables(dataset.tables(shard=i)).equals(expected)
        assert dataset.read_shard(i, ["text", "row"]).equals(expected.select(["text", "row"]))
        start += shard.rows
    clone = pickle.loads(pickle.dumps(dataset))
    assert clone.read_shard(0).equals(dataset.read_shard(0))


def test_tables_are_bounded(tmp_path: Path) -> None:
    root = storage(tmp_path / "ds")
    table = samples.pool(2000)
    samples.committed(root, table=table)
    parts = list(open_dataset(root).tables(["text"], max_bytes=5_000))
    assert len(parts) > 5 and all(0 < p.nbytes <= 5_000 for p in parts)
    assert pa.concat_tables(parts).equals(table.select(["text"]))


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(0, 99), max_size=30))
def test_take_returns_rows_in_the_order_asked(
    rows: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = storage("memory://take/ds")
    table = samples.pool(100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schemas.writer.ROW_GROUP_ROWS", 9)
        samples.committed(root, table=table)
    found = open_dataset(root)
    assert found.shards()[0].row_groups == 12
    expected = table.take(np.array(rows, np.int64)).select(["row", "text"])
    assert found.take(0, rows, ["row", "text"]).equals(expected)


def test_bad_requests_name_what_exists(dataset: Dataset) -> None:
    shards = len(dataset.shards())
    for request, message in (
        (lambda: dataset.read_shard(shards), f"has {shards} shards; {shards} was asked for"),
        (
            lambda: dataset.read_shard(0, ["nope"]),
            "has no column 'nope'; its columns are pair_id, ",
        ),
        (lambda: dataset.take(0, [0, 10**6]), "row 1000000 was asked for"),
        (lambda: dataset.take(0, [-1]), "rows; row -1 was asked for"),
        (lambda: dataset.blob("en"), "has no blob 'en'; its blobs: none"),
    ):
        with pytest.raises(InputError) as caught:
            request()
        assert message in str(caught.value) and dataset.storage.url in str(caught.value)


# -- damage ----------------------------------------------------------------------------------


def damaged_shards(root: Storage) -> str:
    return open_dataset(root).shards()[1].file


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "half a footer": lambda data: data[:-6],
    "not Parquet": lambda data: b"<html>404</html>",
    "zeroed pages": lambda data: data[:4] + bytes(len(data) // 2) + data[len(data) // 2 + 4 :],
    "flipped footer": lambda data: data[:-200] + bytes(192) + data[-8:],
    "missing": lambda data: None,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_shards_are_named_with_checksums(kind: str, tmp_path: Path) -> None:
    root = storage(tmp_path / "ds")
    samples.committed(root, table=samples.pool(600), target_bytes=20_000)
    found = open_dataset(root)
    shard = found.shards()[1]
    data = DAMAGE[kind](root.read_bytes(shard.file))
    root.delete(shard.file)
    if data is not None:
        root.create(shard.file, data)
    for read in (
        lambda: found.read_shard(1),
        lambda: list(found.tables()),
        lambda: found.take(1, [0]),
        lambda: found.read_row_group(1, 0),
    ):
        with pytest.raises(IntegrityError) as caught:
            read()
        text = str(caught.value)
        assert f"{root.url}/{shard.file}" in text and "build the dataset anew" in text
        if data is not None:
            assert f"checksum found {stored_digest(root, shard.file)}" in text
            assert f"expected {shard.digest}" in text
        assert "\n" not in text
    assert found.read_shard(0).num_rows, "other shards still read"


def test_a_valid_file_of_other_rows_is_found_by_its_footer(tmp_path: Path) -> None:
    root = storage(tmp_path / "ds")
    samples.committed(root)
    found = open_dataset(root)
    file = tmp_path / "ds" / found.shards()[0].file
    pq.write_table(samples.pool(49), file)
    with pytest.raises(IntegrityError, match="its footer has 49 rows"):
        found.read_shard(0)


@pytest.mark.parametrize("change", ["delete", "edit"])
def test_a_changed_shard_list_is_found(root: Storage, change: str) -> None:
    head = samples.committed(root)
    key = head.shards["file"]
    data = root.read_bytes(key)
    root.delete(key)
    if change == "edit":
        root.create(key, data[:-1] + b"X")
    with pytest.raises(
        IntegrityError, match="is missing" if change == "delete" else "has checksum"
    ):
        open_dataset(root).shards()


def test_a_hostile_shard_list_cannot_leave_the_dataset(tmp_path: Path) -> None:
    """A head that is consistent in itself but names files outside is refused."""
    from schemas.errors import UsageError
    from schemas.shard_list import write_shard_list
    from schemas.writer import Shard

    root = storage(tmp_path / "ds")
    head = samples.committed(root)
    shards = [Shard("../../etc/passwd", 50, head.totals["bytes"], "00", 1)]
    head.shards = write_shard_list(root, shards)
    root.replace("manifest.json", head.sealed().to_json())
    with pytest.raises(UsageError, match="is not a path below"):
        open_dataset(root).read_shard(0)


# -- evolution -------------------------------------------------------------------------------


def test_shards_of_an_older_version_gain_null_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema that gained a nullable column reads datasets written before."""
    import dataclasses

    from schemas import table_schemas
    from schemas.verify import verify

    root = storage(tmp_path / "ds")
    table = samples.pool(20)
    samples.committed(root, table=table)
    newer = dataclasses.replace(
        table_schemas.POOL,
        version=2,
        arrow=table_schemas.POOL.arrow.append(pa.field("extra", pa.int32())),
    )
    monkeypatch.setitem(table_schemas.SCHEMAS, "pool", newer)
    found = open_dataset(root)
    assert found.manifest.schema["version"] == 1
    back = found.read_shard(0)
    assert back.column_names == newer.arrow.names and back["extra"].null_count == 20
    assert back.drop_columns(["extra"]).equals(table)
    assert found.read_shard(0, ["extra", "row"]).column_names == ["extra", "row"]
    assert found.take(0, [3], ["extra"])["extra"].to_pylist() == [None]
    assert verify(root) == []


# -- blobs -----------------------------------------------------------------------------------


def test_blobs_are_copied_once_and_checked(root: Storage, tmp_path: Path) -> None:
    source = tmp_path / "automaton"
    source.write_bytes(os.urandom(100_000))
    samples.committed(root, blobs={"en": put_blob(root, source)})
    found = open_dataset(root)
    cache = tmp_path / "cache"
    path = found.blob("en", cache)
    assert path.read_bytes() == source.read_bytes() and path.name == file_digest(source)
    status = path.stat()
    assert found.blob("en", cache).stat().st_mtime_ns == status.st_mtime_ns
    assert [p.name for p in cache.iterdir()] == [path.name], "no temporary file stays"


def test_changed_and_missing_blobs_are_refused(root: Storage, tmp_path: Path) -> None:
    source = tmp_path / "automaton"
    source.write_bytes(b"automaton")
    entry = put_blob(root, source)
    samples.committed(root, blobs={"en": entry})
    found = open_dataset(root)
    key = f".headrace/blobs/{entry['digest']}"
    root.replace(key, b"automat0n")
    with pytest.raises(IntegrityError, match=f"the manifest says {entry['digest']}"):
        found.blob("en", tmp_path / "cache")
    root.delete(key)
    with pytest.raises(IntegrityError, match="is missing, but the manifest names it"):
        found.blob("en", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
