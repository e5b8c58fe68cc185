"""The streaming reader: order as a fact, resumption anywhere, online balancing."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.metaclip2.draw import draw
from schemas import ids
from schemas.dataset import Dataset, open_dataset
from schemas.errors import UsageError
from schemas.storage import storage
from schemas.table_schemas import CURATED, MATCHED, POOL, SchemaSpec
from tests.schemas import samples
from tests.support import ROOT
from trainer.reader import Position, Reader


def made(root: Path, spec: SchemaSpec, table: pa.Table, group_rows: int = 37) -> Dataset:
    """A dataset of several shards of small row groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schemas.writer.ROW_GROUP_ROWS", group_rows)
        samples.committed(storage(root), spec, table, target_bytes=14_000)
    return open_dataset(root)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    found = made(tmp_path_factory.mktemp("reader") / "pool", POOL, samples.pool(1000))
    assert len(found.shards()) > 3 and sum(s.row_groups for s in found.shards()) > 20
    return found


def matched_table(images: int) -> pa.Table:
    """MATCHED rows: images with 1 to 90 texts (more than a row group), probabilities 0 to 1."""
    rng = np.random.default_rng(4)
    rows = []
    for i in range(images):
        image = ids.image_id(key=f"{i}")
        texts = int(rng.choice([1, 2, 5, 90], p=[0.4, 0.4, 0.18, 0.02]))
        for t in range(texts):
            rows.append(
                {
                    "pair_id": ids.pair_id(image, f"{t}"),
                    "image_id": image,
                    "key": "alt",
                    "text": f"{t}",
                    "source": 0,
                    "shard": 0,
                    "row": i,
                    "language": "en",
                    "metadata": "en" if t % 2 else "de",
                    "entries": [t],
                    "image_texts": texts,
                    "keep_probability": float(rng.choice([0.0, 0.3, 1.0, rng.random()])),
                }
            )
    rows.sort(key=lambda r: (r["image_id"], r["pair_id"]))
    return MATCHED.validate(pa.Table.from_pylist(rows, schema=_bare(MATCHED)))


def _bare(spec: SchemaSpec) -> pa.Schema:
    return pa.schema([pa.field(f.name, f.type) for f in spec.arrow])


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    found = made(tmp_path_factory.mktemp("reader") / "matched", MATCHED, matched_table(600))
    groups = [
        found.read_row_group(s, g, ["image_id"])["image_id"].to_pylist()
        for s, shard in enumerate(found.shards())
        for g in range(shard.row_groups)
    ]
    cut = sum(a[-1] == b[0] for a, b in itertools.pairwise(groups))
    whole = sum(len(set(g)) == 1 for g in groups)
    assert cut > 5 and whole > 0, "the test needs images that row groups and shards cut"
    return found


def rows_of(reader: Reader, epoch: int = 0, size: int = 64) -> list[int]:
    batches = reader.batches(size, Position(epoch))
    return [row for batch in batches for row in batch.table["row"].to_pylist()]


def test_an_epoch_reads_every_row_once(pool: Dataset) -> None:
    rows = rows_of(Reader(pool, seed=3))
    assert sorted(rows) == list(range(1000))


def test_order_is_a_function_of_dataset_seed_and_epoch(pool: Dataset, tmp_path: Path) -> None:
    base = rows_of(Reader(pool, seed=3))
    assert rows_of(Reader(pool, seed=3), size=7) == base
    copy = made(tmp_path / "elsewhere", POOL, samples.pool(1000))
    assert rows_of(Reader(copy, seed=3)) == base, "the place of a dataset is not content"
    others = [
        rows_of(Reader(pool, seed=4)),
        rows_of(Reader(pool, seed=3), epoch=1),
        rows_of(Reader(pool, seed=3, window=5)),
        rows_of(Reader(made(tmp_path / "other", POOL, samples.pool(1000, seed=1)), seed=3)),
    ]
    assert all(sorted(o) == sorted(base) and o != base for o in others)
    code = (
        "import sys; from schemas.dataset import open_dataset; from trainer.reader import *\n"
        "reader = Reader(open_dataset(sys.argv[1]), seed=3)\n"
        "print([r for b in reader.batches(10) for r in b.table['row'].to_pylist()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, pool.storage.url],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(base)


def test_neighbours_are_spread(pool: Dataset) -> None:
    """Row groups are permuted over the dataset and rows within windows: no run stays together."""
    table = samples.pool(1000)
    place = {row: i for i, row in enumerate(table["row"].to_pylist())}
    order = np.array([place[r] for r in rows_of(Reader(pool, seed=3))])
    assert np.abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.5
    assert (np.abs(np.diff(order)) == 1).mean() < 0.05
    first = order[: 4 * 37]
    assert first.max() - first.min() > 400, "a window holds row groups from all over"


@pytest.mark.parametrize("balance", [None, "image", "text"])
def test_resumption_at_any_batch(pool: Dataset, matched: Dataset, balance: str | None) -> None:
    def reader() -> Reader:
        return Reader(matched if balance else pool, seed=5, balance=balance, window=3)

    batches = list(reader().batches(17, Position(2)))
    assert all(b.table.num_rows == 17 for b in batches[:-1])
    assert batches[-1].next == Position(3) and batches[0].start == Position(2)
    for i in (0, 1, len(batches) // 2, len(batches) - 2):
        again = list(reader().batches(17, batches[i].next))
        assert [b.table.to_pylist() for b in again] == [
            b.table.to_pylist() for b in batches[i + 1 :]
        ]
        assert [b.next for b in again] == [b.next for b in batches[i + 1 :]]


@pytest.mark.parametrize("balance", [None, "image"])
def test_the_kth_sample_is_a_fact(pool: Dataset, matched: Dataset, balance: str | None) -> None:
    found = matched if balance else pool
    reader = Reader(found, seed=6, balance=balance)
    whole = pa.concat_tables(b.table for b in reader.batches(50, Position(1)))
    for k in (0, 1, 49, 50, 123, whole.num_rows - 1):
        position = reader.position(1, k)
        first = next(Reader(found, seed=6, balance=balance).batches(1, position))
        assert first.table.to_pylist() == whole.slice(k, 1).to_pylist()
    with pytest.raises(UsageError, match=f"has {whole.num_rows} samples; sample {10**6}"):
        reader.position(1, 10**6)


def test_locate_names_the_source_of_a_sample(pool: Dataset) -> None:
    reader = Reader(pool, seed=6)
    rows = rows_of(reader, epoch=4)
    for k in (0, 7, 500, 999):
        source = reader.locate(reader.position(4, k))
        table = pool.read_row_group(source.shard, source.row_group, ["row"])
        assert table["row"][source.row].as_py() == rows[k]


def plain_draw(table: pa.Table, seed: int, epoch: int, mode: str) -> set[bytes]:
    """The draw in plain Python over the whole dataset."""

    def u(value: bytes, salt: int) -> float:
        return float(ids.uniform(seed, epoch, ids.id_array([value]), salt)[0])

    texts: dict[bytes, list[dict[str, object]]] = {}
    for row in table.to_pylist():
        texts.setdefault(row["image_id"], []).append(row)
    kept = set()
    for image, rows in texts.items():
        rows.sort(key=lambda r: r["pair_id"])  # type: ignore[arg-type, return-value]
        chosen = rows
        if mode == "image":
            chosen = [rows[int(u(image, ids.SALT_PICK) * len(rows))]]
        for row in chosen:
            pair = row["pair_id"]
            assert isinstance(pair, bytes)
            if u(pair, ids.SALT_DRAW) < row["keep_probability"]:  # type: ignore[operator]
                kept.add(pair)
    return kept


@pytest.mark.parametrize("mode", ["image", "text"])
@pytest.mark.parametrize("epoch", [0, 3])
def test_online_balancing_equals_a_plain_draw(matched: Dataset, mode: str, epoch: int) -> None:
    table = matched_table(600)
    reader = Reader(matched, seed=9, balance=mode, columns=["pair_id", "text"])
    found = [
        row["pair_id"] for b in reader.batches(64, Position(epoch)) for row in b.table.to_pylist()
    ]
    assert max(Counter(found).values()) == 1
    assert set(found) == plain_draw(table, 9, epoch, mode)
    # The same function draws the curated dataset of epoch 0.
    assert set(found) == set(draw(table, 9, epoch, mode).table["pair_id"].to_pylist())
    assert next(reader.batches(1)).table.column_names == ["pair_id", "text"]


def test_epochs_draw_anew(matched: Dataset) -> None:
    draws = [plain_draw(matched_table(600), 9, epoch, "image") for epoch in (0, 1)]
    assert draws[0] != draws[1] and draws[0] & draws[1]


def test_balancing_a_curated_dataset_is_refused(tmp_path: Path, pool: Dataset) -> None:
    curated = made(tmp_path / "curated", CURATED, samples.curated(10))
    with pytest.raises(UsageError) as caught:
        Reader(curated, balance="image")
    text = str(caught.value)
    assert curated.storage.url in text and "is a curated dataset" in text
    assert "Give the matched dataset it was drawn from, or leave balance out" in text
    assert rows_of(Reader(curated)), "reading it as it is stays allowed"
    with pytest.raises(UsageError, match="holds pool, which has no keep_probability"):
        Reader(pool, balance="text")
    with pytest.raises(UsageError, match="balance=best is unknown: give image or text"):
        Reader(curated, balance="best")
    for bad in (lambda: Reader(pool, window=0), lambda: next(Reader(pool).batches(0))):
        with pytest.raises(UsageError, match="give 1 or more"):
            bad()
    with pytest.raises(UsageError, match="an epoch has"):
        Reader(pool).read_window(0, 10**6)


def test_an_empty_dataset_has_no_batches(tmp_path: Path) -> None:
    assert list(Reader(made(tmp_path / "e", POOL, samples.pool(0))).batches(5)) == []


def test_importing_the_reader_loads_no_torch_and_no_beam() -> None:
    code = (
        "import sys, trainer.reader\n"
        "print([m for m in ('torch', 'apache_beam', 'numba', 'polars') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
