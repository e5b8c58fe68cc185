"""The streaming reader: order as a fact, seeking, ranks, restarts, refusals."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from schemas.dataset import Dataset
from schemas.errors import InputError, IntegrityError, UsageError
from schemas.manifest import Manifest
from schemas.table_schemas import MATCHED, POOL
from tests.schemas import samples
from tests.support import ROOT
from tests.trainer.making import a_reader, made, matched_table, pairs_of, rows_of
from trainer.order import permutation
from trainer.reader import Reader, default_window

DRAWS = pytest.mark.parametrize("draw", [None, "image", "text"])


@pytest.mark.parametrize("window", [1, 5, 90, 5000, None])
def test_an_epoch_reads_every_row_once(pool: Dataset, window: int | None) -> None:
    reader = Reader(pool, seed=3, window=window)
    assert len(reader) == 1000
    assert sorted(rows_of(reader)) == list(range(1000))


def test_order_is_a_function_of_dataset_seed_and_epoch(pool: Dataset, tmp_path: Path) -> None:
    base = rows_of(Reader(pool, seed=3))
    assert rows_of(Reader(pool, seed=3), size=7) == base
    copy = made(tmp_path / "elsewhere", POOL, samples.pool(1000))
    assert rows_of(Reader(copy, seed=3)) == base, "the place of a dataset is not content"
    others = [
        rows_of(Reader(pool, seed=4)),
        rows_of(Reader(pool, seed=3, epoch=1)),
        rows_of(Reader(pool, seed=3, window=5)),
        rows_of(Reader(made(tmp_path / "other", POOL, samples.pool(1000, seed=1)), seed=3)),
    ]
    assert all(sorted(o) == sorted(base) and o != base for o in others)
    code = (
        "import sys; from trainer.reader import Reader\n"
        "reader = Reader(sys.argv[1], seed=3)\n"
        "print([r for b in reader.batches(10) for r in b.table['row'].to_pylist()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, pool.storage.url],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(base)


def test_permutations_never_change() -> None:
    """The order of a run that was stopped under an older version must be found again."""
    assert permutation("ab", 1, 2, "window", 3, 8).tolist() == [7, 3, 5, 1, 6, 2, 0, 4]
    assert permutation("ab", 1, 2, "window", 3, 0).tolist() == []


def test_neighbours_are_spread(pool: Dataset) -> None:
    """Row groups are permuted over the dataset and rows within windows: no run stays together."""
    place = {row: i for i, row in enumerate(samples.pool(1000)["row"].to_pylist())}
    order = np.array([place[r] for r in rows_of(Reader(pool, seed=3, window=148))])
    assert np.abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.5
    assert (np.abs(np.diff(order)) == 1).mean() < 0.05
    assert order[:148].max() - order[:148].min() > 400, "a window holds groups from all over"


def test_a_row_stays_in_its_window(pool: Dataset) -> None:
    groups_in_order = rows_of(Reader(pool, seed=3, window=1))
    shuffled = rows_of(Reader(pool, seed=3, window=90))
    for start in range(0, 1000, 90):
        mine = shuffled[start : start + 90]
        assert sorted(mine) == sorted(groups_in_order[start : start + 90])
        assert mine != groups_in_order[start : start + 90]


@DRAWS
def test_the_kth_sample_is_a_fact(pool: Dataset, matched: Dataset, draw: str | None) -> None:
    whole = pa.concat_tables(b.table for b in a_reader(pool, matched, draw).batches(50))
    assert len(a_reader(pool, matched, draw)) == whole.num_rows
    for k in (whole.num_rows - 1, 123, 50, 49, 1, 0):
        one = a_reader(pool, matched, draw).take([k])
        assert one.to_pylist() == whole.slice(k, 1).to_pylist()
    asked = [7, 3, 200, 7, 0]
    assert a_reader(pool, matched, draw).take(asked).to_pylist() == whole.take(asked).to_pylist()
    for wrong in (-1, whole.num_rows):
        with pytest.raises(UsageError, match=f"no sample {wrong}: the epoch has {whole.num_rows}"):
            a_reader(pool, matched, draw).take([0, wrong])


def test_many_blocks_are_an_order_as_good(
    pool: Dataset, matched: Dataset, many_blocks: None
) -> None:
    for mode in (None, "image"):
        whole = pa.concat_tables(b.table for b in a_reader(pool, matched, mode).batches(64))
        ids_read = whole["pair_id"].to_pylist()
        assert sorted(ids_read) == sorted(pairs_of(Reader(
            matched if mode else pool, seed=5, epoch=2, draw=mode, window=1,
        )))  # fmt: skip
        k = whole.num_rows - 2
        found = a_reader(pool, matched, mode).take([k])
        assert found["pair_id"].to_pylist() == ids_read[k : k + 1]


@pytest.mark.usefixtures("many_blocks")
def test_a_seek_reads_only_its_window(pool: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    footers: list[int] = []
    group, rows = Dataset.read_row_group, Dataset.row_group_rows

    def spy(self: Dataset, shard: int, number: int, columns: object = None) -> pa.Table:
        read.append((shard, number))
        return group(self, shard, number, columns)  # type: ignore[arg-type]

    def spy_rows(self: Dataset, shard: int) -> list[int]:
        footers.append(shard)
        return rows(self, shard)

    monkeypatch.setattr(Dataset, "read_row_group", spy)
    monkeypatch.setattr(Dataset, "row_group_rows", spy_rows)
    reader = Reader(pool, seed=3, window=20)
    next(reader.batches(20, start=900))
    assert 1 <= len(read) <= 3 and len(footers) <= 4
    assert len(pool.shards()) > 5


def test_memory_is_that_of_a_window(pool: Dataset) -> None:
    reader = Reader(pool, seed=3, window=90)
    for batch in reader.batches(25):
        held = sum(t.num_rows for t in reader._tables.values())
        assert batch.table.num_rows <= held <= 90 + 2 * 37


@DRAWS
@pytest.mark.parametrize("window", [3, 90])
def test_a_restart_continues_anywhere(
    pool: Dataset, matched: Dataset, draw: str | None, window: int
) -> None:
    reader = a_reader(pool, matched, draw, window)
    batches = list(reader.batches(17))
    assert all(b.table.num_rows == 17 for b in batches[:-1])
    for i in (0, 1, len(batches) // 2, len(batches) - 1):
        state = json.loads(json.dumps(batches[i].state))
        again, start = Reader.resume(reader.dataset, state)
        rest = list(again.batches(17, start=start))
        assert [b.table.to_pylist() for b in rest] == [
            b.table.to_pylist() for b in batches[i + 1 :]
        ]
        assert [b.state for b in rest] == [b.state for b in batches[i + 1 :]]
    assert batches[-1].state["position"] == len(reader)


@pytest.mark.parametrize("draw", [None, "image"])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 3), (2, 1), (3, 2), (7, 1)])
def test_ranks_and_workers_give_one_global_order(
    pool: Dataset, matched: Dataset, draw: str | None, ranks: int, workers: int
) -> None:
    whole = pairs_of(a_reader(pool, matched, draw))
    start = 5
    steps: list[dict[int, bytes]] = []
    for rank in range(ranks):
        by_worker = [
            list(a_reader(pool, matched, draw).batches(
                10, start=start, rank=rank, ranks=ranks, worker=w, workers=workers,
            ))
            for w in range(workers)
        ]  # fmt: skip
        turns = itertools.zip_longest(*by_worker)
        mine = [b for turn in turns for b in turn if b is not None]
        steps = steps or [{} for _ in mine]
        assert len(mine) == len(steps), "every rank has equally many steps"
        for step, batch in zip(steps, mine, strict=True):
            assert set(batch.positions % ranks) <= {rank}
            step.update(
                zip(batch.positions.tolist(), batch.table["pair_id"].to_pylist(), strict=True)
            )
    for number, step in enumerate(steps):
        first = start + number * 10 * ranks
        expected = dict(enumerate(whole))
        assert step == {k: expected[k] for k in range(first, min(first + 10 * ranks, len(whole)))}


def test_what_happens_to_the_remainder(pool: Dataset) -> None:
    def sizes(rank: int, remainder: str) -> list[int]:
        batches = Reader(pool).batches(300, rank=rank, ranks=3, start=99, remainder=remainder)
        return [b.table.num_rows for b in batches]

    assert [sizes(r, "keep") for r in range(3)] == [[300, 1], [300, 0], [300, 0]]
    assert [sizes(r, "drop") for r in range(3)] == [[300]] * 3


@DRAWS
def test_locate_names_the_source_of_a_sample(
    pool: Dataset, matched: Dataset, draw: str | None
) -> None:
    reader = a_reader(pool, matched, draw)
    wanted = [0, 7, 99, len(reader) - 1]
    places = reader.locate(wanted)
    pairs = reader.take(wanted)["pair_id"].to_pylist()
    for shard, group, row, pair in zip(places.shard, places.group, places.row, pairs, strict=True):
        table = reader.dataset.read_shard(shard, ["pair_id"])
        assert table["pair_id"][int(row)].as_py() == pair
        inside = reader.dataset.read_row_group(shard, group, ["pair_id"])["pair_id"].to_pylist()
        assert pair in inside


def test_settings_that_do_not_fit_are_refused(pool: Dataset) -> None:
    reader = Reader(pool)
    for wrong, message in (
        (lambda: Reader(pool, window=0), "window=0: give a number of rows"),
        (lambda: Reader(pool, seed=-1), "seed=-1: give a number"),
        (lambda: Reader(pool, epoch=-1), "epoch=-1: give a number"),
        (lambda: Reader(pool, columns=["caption"]), "no column 'caption' to read; the columns are"),
        (lambda: reader.batches(0), "batch_size=0: give at least 1"),
        (lambda: reader.batches(1, rank=2, ranks=2), "rank=2 of 2: give a number from 0 to 1"),
        (lambda: reader.batches(1, worker=-1), "worker=-1 of 1"),
        (lambda: reader.batches(1, remainder="pad"), "remainder=pad is unknown: give keep or drop"),
    ):
        with pytest.raises(UsageError, match=message):
            wrong()
    for start in (-1, 1001):
        with pytest.raises(UsageError, match=f"no position {start}: the epoch has 1000 samples"):
            reader.batches(1, start=start)
    assert list(reader.batches(1, start=1000)) == []


def test_a_state_of_something_else_is_refused(pool: Dataset, matched: Dataset) -> None:
    state = Reader(pool, seed=3).state(40)
    with pytest.raises(IntegrityError) as caught:
        Reader.resume(matched, state)
    assert pool.manifest.digest in str(caught.value)
    assert matched.manifest.digest in str(caught.value)
    assert caught.value.exit_code == 5
    for name, value in (("seed", 4), ("epoch", 1), ("window", 7)):
        with pytest.raises(UsageError, match=f"saved with {name}={value}, this reader has {name}="):
            Reader(pool, seed=3).position_of({**state, name: value})
    with pytest.raises(InputError, match="position 1001, but the epoch has 1000 samples"):
        Reader.resume(pool, {**state, "position": 1001})
    with pytest.raises(InputError, match="position is '4', not a whole number"):
        Reader.resume(pool, {**state, "position": "4"})
    with pytest.raises(InputError, match="epoch is missing"):
        Reader.resume(pool, {k: v for k, v in state.items() if k != "epoch"})


def test_the_default_window_is_of_bounded_size(pool: Dataset) -> None:
    assert default_window(pool.manifest) == 65_536
    large = Manifest({"name": "curated", "version": 1}, totals={"rows": 1000, "bytes": 10**8})
    assert default_window(large) == (128 << 20) // 10**5
    huge = Manifest({"name": "curated", "version": 1}, totals={"rows": 2, "bytes": 10**9})
    assert default_window(huge) == 1


@DRAWS
def test_an_empty_dataset_has_no_batches(tmp_path: Path, draw: str | None) -> None:
    table = matched_table(1).slice(0, 0)
    empty = made(tmp_path / "e", MATCHED, table)
    reader = Reader(empty, draw=draw)
    assert list(reader.batches(5)) == [] and len(reader) == 0
    assert reader.take([]).schema.names == empty.schema.names


def test_importing_the_reader_loads_no_torch_and_no_beam() -> None:
    code = (
        "import sys, trainer.reader\n"
        "print([m for m in ('torch', 'apache_beam', 'numba', 'polars') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
