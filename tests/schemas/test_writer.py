"""The canonical writer: bytes depend on rows and their order alone."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import ids, row_sizes, writer
from schemas.storage import storage
from schemas.table_schemas import (
    COUNTS,
    IMAGE,
    POOL,
    RECORDS,
    SCHEMAS,
)
from tests.schemas import samples
from tests.support import ROOT

# -- any table of a schema, in any encoding and chunking -----------------------------------------

TEXT = st.text(max_size=12)
ROW = st.fixed_dictionaries(
    {
        "image_id": st.binary(min_size=16, max_size=16),
        "url": st.none() | TEXT,
        "texts": st.lists(st.fixed_dictionaries({"key": TEXT, "text": TEXT}), max_size=4),
        "image": st.none()
        | st.fixed_dictionaries(
            {"bytes": st.none() | st.binary(max_size=40), "path": st.none() | TEXT}
        ),
        "sha256": st.none() | st.binary(min_size=32, max_size=32),
        "phash": st.none() | st.integers(0, 2**64 - 1),
        "score": st.none() | st.floats(allow_nan=True),
        "file": st.integers(0, 3),
        "position": st.integers(0, 9),
    }
)


def sliced(table: pa.Table, draw: st.DrawFn) -> pa.Table:
    """The same rows as a slice of a larger table, so that offsets are not 0."""
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    if not len(table):
        return table
    first = table.slice(0, 1)
    whole = pa.concat_tables([*[first] * before, table, *[first] * after]).combine_chunks()
    return whole.slice(before, len(table))


def encoded(table: pa.Table, kind: str) -> pa.Table:
    """The same values with another encoding of the string columns."""
    if kind == "dictionary":
        column = table.column("url").dictionary_encode()
    elif kind in ("large_string", "string_view"):
        column = table.column("url").cast(getattr(pa, kind)())
    else:
        return table
    return table.set_column(table.column_names.index("url"), "url", column)


@st.composite
def splits(draw: st.DrawFn) -> tuple[pa.Table, list[pa.Table], int]:
    rows = sorted(draw(st.lists(ROW, max_size=30)), key=lambda r: (r["file"], r["position"]))
    table = pa.Table.from_pylist(rows, RECORDS.arrow)
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=8)))
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        part = sliced(table.slice(start, stop - start), draw)
        parts.append(
            encoded(part, draw(st.sampled_from(["", "dictionary", "large_string", "string_view"])))
        )
    return table, parts, draw(st.sampled_from([1, 200, 1000, 1 << 28]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=splits())
def test_bytes_do_not_depend_on_chunking_or_encoding(
    case: tuple[pa.Table, list[pa.Table], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    table, parts, target = case
    folder = tmp_path_factory.mktemp("chunks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ROW_GROUP_BYTES", 300)
        patch.setattr(writer, "ROW_GROUP_ROWS", 7)
        whole = samples.shards_of(folder / "whole", RECORDS, [table], target)
        split = samples.shards_of(folder / "split", RECORDS, parts, target)
    assert whole == split
    back = [pq.read_table(folder / "split" / s.file) for s in split]
    if back:
        assert pa.concat_tables(back).to_pylist().__repr__() == table.to_pylist().__repr__()


def test_bytes_do_not_depend_on_chunking_across_pages(tmp_path: Path) -> None:
    """Row groups of many pages: here the chunks of a bare ``write_table`` change the bytes."""
    table = pa.concat_tables(
        samples.pool(300, seed=n).set_column(
            7, POOL.arrow.field("row"), pa.array(range(n, n + 300))
        )
        for n in range(40)
    )
    table = table.sort_by([("image_id", "ascending"), ("pair_id", "ascending")]).combine_chunks()
    text = pa.array([f"{t} " * 30 for t in table["text"].to_pylist()])
    table = table.set_column(4, POOL.arrow.field("text"), text)

    def chunked(chunks: int) -> pa.Table:
        step = -(-table.num_rows // chunks)
        return pa.concat_tables(table.slice(i, step) for i in range(0, table.num_rows, step))

    bare = set()
    for chunks in (1, 50, 7):
        pq.write_table(chunked(chunks), tmp_path / "bare", row_group_size=1 << 20)
        bare.add(hashlib.sha256((tmp_path / "bare").read_bytes()).hexdigest())
    assert len(bare) > 1, "the table does not show what the writer guards against"
    digests = set()
    for chunks in (1, 50, 7):
        whole = samples.shards_of(tmp_path / f"whole-{chunks}", POOL, [chunked(chunks)])
        parts = [table.slice(b[0].as_py(), len(b)) for b in _runs(table.num_rows, chunks)]
        split = samples.shards_of(tmp_path / f"split-{chunks}", POOL, parts)
        digests |= {tuple(s.digest for s in whole), tuple(s.digest for s in split)}
    assert len(digests) == 1


def _runs(rows: int, count: int) -> list[pa.Array]:
    step = -(-rows // count)
    numbers = pa.array(range(rows))
    return [numbers.slice(i, step) for i in range(0, rows, step)]


def plain_size(value: object, kind: pa.DataType) -> int:
    """The documented size of one value, by a plain recursion."""
    if value is None:
        return 1
    if pa.types.is_struct(kind):
        assert isinstance(value, dict)
        return 1 + sum(plain_size(value[f.name], f.type) for f in kind.fields)
    if pa.types.is_list(kind):
        assert isinstance(value, list)
        return 4 + sum(1 + plain_size(v, kind.value_type) for v in value)
    if isinstance(value, str | bytes) and not pa.types.is_fixed_size_binary(kind):
        return 4 + len(value.encode() if isinstance(value, str) else value)
    return int(kind.bit_width // 8)


@settings(max_examples=60, deadline=None)
@given(case=splits())
def test_row_sizes_and_cuts_follow_the_stated_rule(
    case: tuple[pa.Table, list[pa.Table], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Sizes by plain recursion over Python values; cuts by looking at one row after the other."""
    table, parts, target = case
    rows = table.to_pylist()
    sizes = [sum(plain_size(r[f.name], f.type) for f in RECORDS.arrow) for r in rows]
    assert row_sizes.row_sizes(table).tolist() == sizes
    assert row_sizes.row_sizes(table.slice(2)).tolist() == sizes[2:]
    limit, most = 300, 7
    expected: list[list[int]] = []  # rows of each row group, per shard
    shard_bytes = group_bytes = 0
    for size in sizes:
        if not expected or shard_bytes + size > target:
            expected.append([1])
            shard_bytes = group_bytes = size
            continue
        if group_bytes + size > limit or expected[-1][-1] == most:
            expected[-1].append(0)
            group_bytes = 0
        expected[-1][-1] += 1
        shard_bytes += size
        group_bytes += size
    folder = tmp_path_factory.mktemp("cuts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ROW_GROUP_BYTES", limit)
        patch.setattr(writer, "ROW_GROUP_ROWS", most)
        shards = samples.shards_of(folder, RECORDS, parts, target)
    found = []
    for shard in shards:
        meta = pq.read_metadata(folder / shard.file)
        found.append([meta.row_group(i).num_rows for i in range(meta.num_row_groups)])
        assert (shard.rows, shard.row_groups) == (meta.num_rows, meta.num_row_groups)
    assert found == expected


def test_what_lies_under_nulls_decides_nothing(tmp_path: Path) -> None:
    """Arrays whose null slots hide bytes give the same sizes and shards as clean ones."""
    clean = samples.pool(6)
    urls = [None, "a", None, "bb", None, None]
    hidden = pa.StringArray.from_buffers(
        6,
        pa.array([0, 50, 51, 81, 83, 90, 99], pa.int32()).buffers()[1],
        pa.py_buffer(b"x" * 50 + b"a" + b"y" * 30 + b"bb" + b"z" * 16),
        pa.py_buffer(bytes([0b001010])),
    )
    assert hidden.to_pylist() == urls
    i = clean.column_names.index("url")
    tables = [clean.set_column(i, POOL.arrow.field("url"), a) for a in (hidden, pa.array(urls))]
    sizes = [row_sizes.row_sizes(t).tolist() for t in tables]
    assert sizes[0] == sizes[1]
    results = [samples.shards_of(tmp_path / str(n), POOL, [t], 150) for n, t in enumerate(tables)]
    assert results[0] == results[1]


def test_same_bytes_in_another_process_and_thread_setting(tmp_path: Path) -> None:
    here = samples.shards_of(tmp_path / "a", POOL, [samples.pool(500)], 20_000)
    code = (
        "import sys; from pathlib import Path; import pyarrow as pa; pa.set_cpu_count(1)\n"
        "from tests.schemas import samples; from schemas.storage import storage\n"
        "from schemas.table_schemas import POOL\n"
        "for s in samples.write(storage(sys.argv[1]), POOL, samples.pool(500), 20_000): "
        "print(s.digest)"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "LANG": "C"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b")],
        cwd=ROOT, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [s.digest for s in here] and len(here) > 2


# -- the files -----------------------------------------------------------------------------------


def test_files_are_named_by_their_sha256_and_described(tmp_path: Path) -> None:
    table = samples.pool(900)
    shards = samples.shards_of(tmp_path, POOL, [table], 30_000)
    assert len(shards) > 2
    for shard in shards:
        data = (tmp_path / shard.file).read_bytes()
        assert shard.digest == hashlib.sha256(data).hexdigest()
        assert shard.file == f"data/{shard.digest}.parquet" and shard.bytes == len(data)
        part = pq.read_table(tmp_path / shard.file)
        assert int(shard.id_sum, 16) == ids.id_sum(part.column("pair_id"))
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == sorted(
        f"{s.digest}.parquet" for s in shards
    )
    whole = pa.concat_tables(pq.read_table(tmp_path / s.file) for s in shards)
    assert whole.equals(table)


def test_codecs_and_row_group_limit(tmp_path: Path) -> None:
    """zstd everywhere but on image bytes; no row group above 16 MB, whatever the columns."""
    rng = np.random.default_rng(1)
    n = 1_300
    cells = [{"bytes": rng.bytes(30_000), "path": "p"} for _ in range(n)]
    records = pa.table(
        {
            "image_id": ids.id_array(ids.id128(b"%d" % i) for i in range(n)),
            "texts": [[{"key": "a", "text": "b"}]] * n,
            "image": pa.array(cells, RECORDS.arrow.field("image").type),
            "file": np.zeros(n, np.int32),
            "position": np.arange(n),
        }
    )
    numbers = samples.counts(1_200_000)
    big = samples.pool(30_000, seed=2)
    for spec, table in ((RECORDS, records), (COUNTS, numbers), (POOL, big)):
        (shard,) = samples.shards_of(
            tmp_path / spec.name, spec, [RECORDS.validate(table) if spec is RECORDS else table]
        )
        meta = pq.read_metadata(tmp_path / spec.name / shard.file)
        assert shard.row_groups == meta.num_row_groups
        for g in range(meta.num_row_groups):
            group = meta.row_group(g)
            assert group.total_byte_size <= 16_000_000
            for c in range(group.num_columns):
                column = group.column(c)
                raw = column.path_in_schema == "image.bytes"
                assert column.compression == ("UNCOMPRESSED" if raw else "ZSTD")
        if spec is not POOL:
            assert meta.num_row_groups > 1


def test_a_row_larger_than_a_row_group_stands_alone(tmp_path: Path) -> None:
    sizes = [10, 20_000_000, 10, 10]
    table = RECORDS.validate(
        pa.table(
            {
                "image_id": ids.id_array(bytes([i]) * 16 for i in range(4)),
                "texts": [[]] * 4,
                "image": pa.array([{"bytes": b"x" * s, "path": None} for s in sizes], IMAGE),
                "file": pa.array([0] * 4, pa.int32()),
                "position": [0, 1, 2, 3],
            }
        )
    )  # fmt: skip
    (shard,) = samples.shards_of(tmp_path, RECORDS, [table])
    meta = pq.read_metadata(tmp_path / shard.file)
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [1, 1, 2]


def test_schema_metadata_comes_from_the_schema(tmp_path: Path) -> None:
    table = samples.counts(3).replace_schema_metadata({"author": "someone", "pandas": "{}"})
    (plain,) = samples.shards_of(tmp_path / "a", COUNTS, [samples.counts(3)])
    (foreign,) = samples.shards_of(tmp_path / "b", COUNTS, [table])
    assert plain == foreign
    metadata = pq.read_schema(tmp_path / "a" / plain.file).metadata
    assert set(metadata) == {b"headrace", b"huggingface"}
    (marked,) = samples.shards_of(tmp_path / "c", COUNTS, [table], extra_metadata={"unit": "7"})
    assert marked.digest != plain.digest
    assert pq.read_schema(tmp_path / "c" / marked.file).metadata[b"headrace.unit"] == b"7"


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_writes_and_reads_an_empty_shard(tmp_path: Path, name: str) -> None:
    spec = SCHEMAS[name]
    assert samples.shards_of(tmp_path, spec, [spec.empty()]) == []
    shard = writer.write_empty(storage(tmp_path), spec)
    assert pq.read_table(tmp_path / shard.file).schema.equals(spec.arrow, check_metadata=True)
