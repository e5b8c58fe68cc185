"""A finished run as others open it: `datasets`, polars, pillow, and the trainer's reader."""

from __future__ import annotations

import json
from pathlib import Path

import polars
import pytest
from PIL import Image

from schemas.dataset import open_dataset
from schemas.errors import UsageError
from schemas.manifest import Manifest
from trainer.cli import main as trainer
from trainer.reader import Reader

SEED = 0
STAGES = ("records", "pool", "matches", "counts", "sample", "balance", "matched", "curated")


def frame(place: Path, *columns: str) -> polars.DataFrame:
    scan = polars.scan_parquet(place / "data" / "*.parquet")
    return (scan.select(columns) if columns else scan).collect()


def manifest(place: Path) -> Manifest:
    return open_dataset(place).manifest


@pytest.mark.parametrize("stage", STAGES)
def test_polars_and_datasets_see_the_rows_of_the_manifest(
    baseline: Path, tmp_path: Path, stage: str
) -> None:
    import datasets

    place = baseline / stage
    rows = manifest(place).totals["rows"]
    assert rows > 0
    assert frame(place).height == rows
    opened = datasets.load_dataset(str(place), split="train", cache_dir=str(tmp_path))
    assert opened.num_rows == rows
    assert opened.column_names == [field.name for field in open_dataset(place).schema]


def test_every_curated_row_has_a_picture(baseline: Path, tmp_path: Path) -> None:
    import datasets

    place = baseline / "curated"
    opened = datasets.load_dataset(str(place), split="train", cache_dir=str(tmp_path))
    pictures = 0
    for row in opened:
        assert isinstance(row["image"], Image.Image)
        row["image"].load()
        assert row["image"].size == (96, 96)
        pictures += 1
    assert pictures == manifest(place).totals["rows"]


def pairs(place: Path, epoch: int, mode: str = "image") -> list[bytes]:
    reader = Reader(place, seed=SEED, epoch=epoch, draw=mode, columns=["pair_id"])
    return [pair for batch in reader.batches(64) for pair in batch.table["pair_id"].to_pylist()]


def test_epoch_0_of_the_trainer_is_the_curated_dataset(baseline: Path) -> None:
    drawn = pairs(baseline / "matched", epoch=0)
    curated = frame(baseline / "curated", "pair_id")["pair_id"].to_list()
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == set(curated)


def test_each_epoch_of_the_trainer_is_drawn_anew(baseline: Path) -> None:
    epochs = [set(pairs(baseline / "matched", epoch)) for epoch in range(4)]
    assert len(set(map(frozenset, epochs))) == 4
    stats = manifest(baseline / "matched").stats["total"]
    for epoch in epochs:
        assert abs(len(epoch) - stats["expected"]) <= 4 * stats["variance"] ** 0.5
    matched = frame(baseline / "matched", "pair_id", "keep_probability", "image_texts")
    certain = (polars.col("keep_probability") == 1) & (polars.col("image_texts") == 1)
    tail = set(matched.filter(certain)["pair_id"])
    assert tail and all(tail <= epoch for epoch in epochs)
    assert len(set.union(*epochs)) > max(map(len, epochs))  # heads that one epoch left out


def test_a_mean_over_epochs_comes_to_the_keep_probability(baseline: Path) -> None:
    """The mean of keep_probability over the heads is what 12 epochs of mode text keep of them."""
    matched = frame(baseline / "matched", "pair_id", "keep_probability")
    heads = matched.filter(polars.col("keep_probability") < 1)
    wanted = set(heads["pair_id"])
    epochs = 12
    kept = sum(
        len(wanted.intersection(pairs(baseline / "matched", epoch, "text")))
        for epoch in range(epochs)
    )
    q = heads["keep_probability"]
    variance = float((q * (1 - q)).sum()) * epochs
    assert abs(kept - float(q.sum()) * epochs) <= 4 * variance**0.5


def test_balancing_curated_again_is_refused(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="matched"):
        Reader(baseline / "curated", draw="image")
    assert trainer(["read", str(baseline / "curated"), "--draw", "image"]) == 2
    assert "matched" in capsys.readouterr().err


def test_without_a_draw_curated_is_read_whole(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = manifest(baseline / "curated").totals["rows"]
    words = ["--json", "--rows", str(rows), "--columns", "pair_id,text"]
    assert trainer(["read", str(baseline / "curated"), *words]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    served = sorted(line["pair_id"] for line in lines if "pair_id" in line)
    held = sorted(pair.hex() for pair in frame(baseline / "curated", "pair_id")["pair_id"])
    assert served == held
