"""What the writer refuses, and the memory it takes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import ids, row_sizes
from schemas.errors import InputError, IntegrityError
from schemas.storage import storage
from schemas.table_schemas import (
    COUNTS,
    CURATED,
    MATCHES,
    POOL,
)
from schemas.writer import ShardWriter
from tests.schemas import samples
from tests.support import ROOT


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab\u00e9\uffff\U0001f600"), st.integers(0, 3)), max_size=12
    ),
    st.lists(st.integers(0, 12), max_size=3),
)
def test_rows_out_of_order_are_refused(rows: list[tuple[str, int]], cuts: list[int]) -> None:
    """Refused exactly when plain Python finds a descent (strings by UTF-8 bytes), at any chunking."""
    keys = [(text.encode(), n) for text, n in rows]
    descent = next((i for i in range(1, len(keys)) if keys[i] < keys[i - 1]), None)
    table = COUNTS.validate(
        pa.table(
            {
                "metadata": pa.array([t for t, _ in rows], pa.string()),
                "entry": pa.array([n for _, n in rows], pa.uint32()),
                "count": pa.array([1] * len(rows), pa.uint64()),
            }
        )
    )
    assert row_sizes.first_disorder(table, COUNTS.sort_by) == descent
    made = ShardWriter(storage("memory://order"), COUNTS)
    edges = sorted({0, len(rows), *(min(c, len(rows)) for c in cuts)})
    found: str | None = None
    for start, stop in itertools.pairwise(edges):
        try:
            made.write(table.slice(start, stop - start))
        except IntegrityError as error:
            found = str(error)
            break
    made.abort()
    assert (found is None) == (descent is None)
    if found is not None:
        assert f"row {descent} is out of order" in found
        assert "sorted by metadata, entry" in found


def test_fixed_size_ids_are_ordered_by_bytes() -> None:
    values = [b"\x00" * 16, b"\x00" * 15 + b"\x80", b"\x7f" + bytes(15), b"\x80" + bytes(15)]
    table = pa.table({"id": ids.id_array(values)})
    assert row_sizes.first_disorder(table, ("id",)) is None
    assert row_sizes.first_disorder(table.take([0, 2, 1, 3]), ("id",)) == 2


def test_order_can_be_replaced(tmp_path: Path) -> None:
    table = samples.curated(9)
    by_place = table.sort_by([("row", "ascending")])
    assert by_place["pair_id"].to_pylist() != table["pair_id"].to_pylist()
    with pytest.raises(IntegrityError, match="sorted by image_id, pair_id"):
        samples.shards_of(tmp_path / "a", CURATED, [by_place])
    order = ("source", "shard", "row", "pair_id")
    assert samples.shards_of(tmp_path / "b", CURATED, [by_place], sort_by=order)[0].rows == 9
    with pytest.raises(IntegrityError, match="sorted by source, shard, row, pair_id"):
        samples.shards_of(tmp_path / "c", CURATED, [table], sort_by=order)


def test_a_refused_or_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    table = samples.pool(50)
    with pytest.raises(InputError, match="has no column"):
        samples.shards_of(tmp_path, POOL, [table, samples.counts(5)])
    with pytest.raises(IntegrityError, match="out of order"):
        samples.shards_of(tmp_path, POOL, [table, table])
    with pytest.raises(KeyboardInterrupt), ShardWriter(storage(tmp_path), POOL) as made:
        made.write(table)
        raise KeyboardInterrupt
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    with pytest.raises(ValueError, match="closed"):
        made.write(table)


def test_a_squatted_name_is_refused(tmp_path: Path) -> None:
    """A foreign file under a shard's digest is not taken for the shard."""
    (shard,) = samples.shards_of(tmp_path / "a", POOL, [samples.pool(5)])
    (tmp_path / "b/data").mkdir(parents=True)
    (tmp_path / "b" / shard.file).write_bytes(b"short")
    with pytest.raises(IntegrityError, match="exists with 5 bytes"):
        samples.shards_of(tmp_path / "b", POOL, [samples.pool(5)])


# -- memory --------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
import numpy as np, pyarrow as pa
from schemas.storage import storage
from schemas.table_schemas import COUNTS
from schemas.writer import ShardWriter
megabytes = int(sys.argv[2])
rows = 500_000
rng = np.random.default_rng(0)
def table(i):
    entry = np.arange(i * rows, (i + 1) * rows, dtype=np.uint32)
    big = pa.table({"metadata": pa.array(["en"] * rows), "entry": entry,
                    "count": rng.integers(0, 2**60, rows, np.uint64)})
    return COUNTS.validate(big)
with ShardWriter(storage(sys.argv[1]), COUNTS, target_bytes=1 << 40) as writer:
    for i in range(megabytes // 9):
        writer.write(table(i))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    """One shard of 100 MB and one of 800 MB need the same memory."""
    peaks = []
    for megabytes in (100, 800):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path / str(megabytes)), str(megabytes)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 60, peaks


def test_small_slices_do_not_keep_large_tables_alive(tmp_path: Path) -> None:
    """Ten rows each of many 9 MB tables: the writer holds the rows, not the tables."""
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    made = ShardWriter(storage(tmp_path), MATCHES, sort_by=())
    for i in range(60):
        base = samples.pool(10, seed=i)
        filler = pa.array(["x" * 900_000] + ["y"] * 9)
        wide = base.set_column(base.column_names.index("text"), "text", filler)
        more = {"language": ["en"] * 10, "metadata": ["en"] * 10, "entries": [[1]] * 10}
        for name, values in more.items():
            wide = wide.append_column(name, pa.array(values))
        wide = MATCHES.validate(pa.concat_tables([wide] * 10).combine_chunks())
        made.write(wide.slice(1, 9))
        del wide
    held = pool.bytes_allocated() - before
    made.abort()
    assert held < 150 << 20, f"{held >> 20} MB held for 540 short rows"
