"""The draw of each epoch while reading: that of `curated`, anew, and never of a draw."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from curation.metaclip2.draw import draw
from schemas import ids
from schemas.dataset import Dataset
from schemas.errors import UsageError
from schemas.table_schemas import CURATED
from tests.schemas import samples
from tests.trainer.making import made, matched_table, pairs_of, rows_of
from trainer.reader import Reader


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


@pytest.mark.spec("metaclip2", 19)
@pytest.mark.parametrize("mode", ["image", "text"])
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_draw_equals_a_plain_draw(matched: Dataset, mode: str, epoch: int) -> None:
    table = matched_table(600)
    reader = Reader(matched, seed=9, epoch=epoch, draw=mode, columns=["pair_id", "text"])
    found = pairs_of(reader)
    assert max(Counter(found).values()) == 1
    assert set(found) == plain_draw(table, 9, epoch, mode)
    # The same function draws the curated dataset of epoch 0.
    assert set(found) == set(draw(table, 9, epoch, mode).table["pair_id"].to_pylist())
    assert next(reader.batches(1)).table.column_names == ["pair_id", "text"]


@pytest.mark.spec("metaclip2", 19)
def test_a_draw_knows_images_that_cuts_part(matched: Dataset, many_blocks: None) -> None:
    assert set(pairs_of(Reader(matched, seed=9, draw="image"))) == plain_draw(
        matched_table(600), 9, 0, "image"
    )


def test_epochs_draw_anew(matched: Dataset) -> None:
    draws = [set(pairs_of(Reader(matched, seed=9, epoch=e, draw="image"))) for e in (0, 1)]
    assert draws[0] != draws[1] and draws[0] & draws[1]


def test_a_draw_of_a_curated_dataset_is_refused(tmp_path: Path, pool: Dataset) -> None:
    curated = made(tmp_path / "curated", CURATED, samples.curated(10))
    with pytest.raises(UsageError) as caught:
        Reader(curated, draw="image")
    text = str(caught.value)
    assert curated.storage.url in text and "which is one draw already" in text
    assert "give the `matched` dataset that it was drawn from, or leave draw out" in text
    assert rows_of(Reader(curated)), "reading it as it is stays allowed"
    with pytest.raises(UsageError, match=r"needs a matched dataset .* is pool"):
        Reader(pool, draw="text")
    with pytest.raises(UsageError, match="mode=best is unknown: give image or text"):
        Reader(curated, draw="best")
