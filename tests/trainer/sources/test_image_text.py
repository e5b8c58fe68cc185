"""Samples of image-text pairs: by position, over epochs, in any order, by any number of threads."""

from __future__ import annotations

import io
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from curation.metaclip2.draw import draw
from curation.pool.render import render
from curation.pool.scene import url_of
from curation.pool.stamps import load as load_stamps
from schemas.dataset import Dataset
from schemas.errors import InputError, UsageError
from schemas.table_schemas import CURATED, MATCHED
from tests.schemas import samples
from tests.trainer.making import made, matched_table
from trainer import tokenizer
from trainer.protocols import Parts, Source
from trainer.sources import crops, pictures
from trainer.sources.image_text import ImageText, Settings, build

ROWS, SIZE, CONTEXT = 120, 16, 10
TOKENIZER = tokenizer.train((f"w{i} w{i * 7}" for i in range(999)), 400)
MODEL = SimpleNamespace(
    config=SimpleNamespace(
        vision_config=SimpleNamespace(image_size=SIZE),
        text_config=SimpleNamespace(max_position_embeddings=CONTEXT),
    )
)


def a_source(dataset: Dataset, seed: int = 3, **settings: Any) -> ImageText:
    run: Any = SimpleNamespace(seed=seed)
    return build(Settings(path=dataset.storage.url, **settings), run, Parts(TOKENIZER, MODEL))


def picture(i: int) -> bytes:
    noise = np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).resize((40, 30)).save(sink, "JPEG" if i % 2 else "PNG")
    return sink.getvalue()


def with_images(cells: list[bytes | None]) -> pa.Table:
    table = samples.curated(len(cells))
    column = pa.array(
        [None if c is None else {"bytes": c, "path": None} for c in cells],
        CURATED.arrow.field("image").type,
    )
    return CURATED.validate(
        table.set_column(table.schema.get_field_index("image"), "image", column)
    )


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    table = with_images([picture(i) for i in range(ROWS)])
    return made(tmp_path_factory.mktemp("source") / "curated", CURATED, table)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Rows 0 to 59: no image, truncated, not an image, or too large; the rest fine."""
    bad = [None, picture(1)[:-300], b"<html>", b""]
    cells = [bad[i % 4] if i < 60 else picture(i) for i in range(ROWS)]
    return made(tmp_path_factory.mktemp("source") / "damaged", CURATED, with_images(cells))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows_at(source: ImageText, batch: dict[str, torch.Tensor], rows: list[int]) -> dict[str, Any]:
    return {name: values[rows] for name, values in batch.items()}


def test_a_batch_is_what_the_model_takes(curated: Dataset) -> None:
    source = a_source(curated)
    assert isinstance(source, Source) and source.digest == curated.manifest.digest
    batch = source.batch(np.arange(7))
    assert {name: (tuple(v.shape), v.dtype) for name, v in batch.items()} == {
        "pixel_values": ((7, 3, SIZE, SIZE), torch.float32),
        "input_ids": ((7, CONTEXT), torch.int64),
        "attention_mask": ((7, CONTEXT), torch.int64),
    }
    assert source.replaced() == []


def test_a_sample_is_a_row_of_the_dataset(curated: Dataset) -> None:
    """Image, crop and text belong together and to the place that is named."""
    source = a_source(curated)
    wanted = np.array([ROWS + 5, 0, 77])
    batch = source.batch(wanted)
    for i, place in enumerate(source.places(wanted)):
        table = curated.read_shard(place["shard"])
        row = table.slice(place["row"], 1).to_pylist()[0]
        assert row["pair_id"].hex() == place["ids"]["pair_id"]
        assert (
            place["position"] == wanted[i]
            and place["file"] == curated.shards()[place["shard"]].file
        )
        assert (place["epoch"], place["sample"]) == divmod(int(wanted[i]), ROWS)
        u = crops.chances(3, place["epoch"], np.array([place["sample"]]))[0]
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        box = crops.crop(*image.size, (0.9, 1.0), u)
        edges = [round(v * side) for v, side in zip(box, image.size * 2, strict=True)]
        cut = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, tuple(edges))
        pixels = np.asarray(cut).transpose(2, 0, 1) / 255
        mean, std = (np.array(v)[:, None, None] for v in (pictures.MEAN, pictures.STD))
        off = np.abs(batch["pixel_values"][i].numpy() * std + mean - pixels)
        assert off.max() < 5 / 255 and off.mean() < 0.3 / 255, "they round a few values differently"
        ids, mask = tokenizer.encode(TOKENIZER, [row["text"]], CONTEXT)
        assert np.array_equal(batch["input_ids"][i].numpy(), ids[0])
        assert np.array_equal(batch["attention_mask"][i].numpy(), mask[0])


@pytest.mark.parametrize("draw_mode", [None, "image"])
def test_the_kth_sample_is_a_fact(curated: Dataset, draw_mode: str | None, tmp_path: Path) -> None:
    dataset, more = curated, {}
    if draw_mode:
        dataset = made(tmp_path / "matched", MATCHED, pool_rows(40))
        more = {"draw": draw_mode, "images": "generated", "render_size": 32}
    source = a_source(dataset, window=23, **more)
    total = source.samples(2.5)
    whole = source.batch(np.arange(total))
    fresh = a_source(dataset, window=23, **more)
    for k in np.random.default_rng(0).permutation(total)[:20].tolist():
        assert equal(fresh.batch(np.array([k])), rows_at(source, whole, [k]))
    asked = [total - 1, 0, 3, 3, total // 2]
    assert equal(source.batch(np.array(asked)), rows_at(source, whole, asked))
    assert not equal(
        a_source(dataset, seed=4, window=23, **more).batch(np.arange(9)), source.batch(np.arange(9))
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_any_number_of_threads_gives_the_same_batches(
    damaged: Dataset, threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    steps = [np.arange(k, k + 12) for k in range(0, 2 * ROWS, 12)]
    alone = a_source(damaged, window=30)
    expected, noted = [alone.batch(step) for step in steps], alone.replaced()
    shared = a_source(damaged, window=30)
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(shared.batch, steps))
    assert all(equal(a, b) for a, b in zip(found, expected, strict=True))
    assert shared.replaced() == noted and len(noted) == ROWS, "half of the rows, in two epochs"


def test_epochs_follow_one_another(curated: Dataset) -> None:
    source = a_source(curated)
    assert [source.samples(e) for e in (0, 0.5, 1, 1.25, 3)] == [0, 60, 120, 150, 360]
    epochs = [
        [p["ids"]["pair_id"] for p in source.places(np.arange(ROWS) + e * ROWS)] for e in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]
    with pytest.raises(UsageError, match="no sample -1: positions start at 0"):
        source.batch(np.array([3, -1]))


def pool_rows(images: int) -> pa.Table:
    """MATCHED rows whose URLs are of the generated pool."""
    table = matched_table(images)
    stamps = load_stamps().stamps
    urls = [url_of(1, i, stamps[i % len(stamps)].id) for i in table["row"].to_pylist()]
    return MATCHED.validate(
        table.set_column(table.schema.get_field_index("url"), "url", pa.array(urls))
    )


@pytest.mark.parametrize("mode", ["image", "text"])
def test_each_epoch_is_a_draw_of_curation(tmp_path: Path, mode: str) -> None:
    table = pool_rows(60)
    source = a_source(made(tmp_path / "matched", MATCHED, table), images="generated", draw=mode)
    start, sizes = 0, set()
    for epoch in range(3):
        drawn = draw(table, 3, epoch, mode).table["pair_id"].to_pylist()
        end = source.samples(epoch + 1)
        assert end - start == len(drawn)
        found = [p["ids"]["pair_id"] for p in source.places(np.arange(start, end))]
        assert sorted(found) == sorted(pair.hex() for pair in drawn)
        assert source.samples(epoch + 0.5) == start + len(drawn) // 2
        start, sizes = end, sizes | {len(drawn)}
    assert len(sizes) > 1, "epochs of different length"


def test_generated_pictures_are_those_of_the_pool(tmp_path: Path) -> None:
    dataset = made(tmp_path / "matched", MATCHED, pool_rows(10))
    source = a_source(dataset, images="generated", crop=None, render_size=48)
    batch = source.batch(np.arange(4))
    for i, place in enumerate(source.places(np.arange(4))):
        image = pictures.load(render(place["ids"]["url"], 48), (SIZE, SIZE))
        assert torch.equal(batch["pixel_values"][i], pictures.normalise(image))


def test_a_bad_image_is_replaced_by_a_function_of_its_position(
    damaged: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    source = a_source(damaged)
    batch = source.batch(np.arange(ROWS))
    noted = source.replaced()
    ids = {p["position"]: p["ids"]["pair_id"] for p in source.places(np.arange(ROWS))}
    table = pa.concat_tables(damaged.tables())
    cut = picture(1)[:-300]
    fine = {
        row["pair_id"].hex()
        for row in table.select(["pair_id", "image"]).to_pylist()
        if row["image"] and len(row["image"]["bytes"]) > 10 and row["image"]["bytes"] != cut
    }
    assert len(noted) == 60 and [n["position"] for n in noted] == sorted(
        n["position"] for n in noted
    )
    assert {n["reason"] for n in noted} == {"no_image", "not_an_image"}
    for note in noted:
        assert ids[note["position"]] == note["id"] not in fine
        assert ids[note["by"]] in fine and 1 <= note["tried"] <= 16
        assert equal(
            rows_at(source, batch, [note["position"]]), rows_at(source, batch, [note["by"]])
        )
        assert (
            f"sample {note['position']} ({note['id']}) is replaced by sample {note['by']}"
            in caplog.text
        )
    assert source.replaced() == [], "told once"
    assert len({n["by"] for n in noted}) > 20, "not all by the same"


def test_images_over_the_limit_are_replaced_and_none_left_is_an_error(curated: Dataset) -> None:
    source = a_source(curated, max_pixels=40 * 30 - 1)
    with pytest.raises(InputError) as caught:
        source.batch(np.array([4]))
    assert "40 x 30 pixels, the limit is 1199" in str(caught.value)
    assert "the 16 samples tried in its place" in str(caught.value)


def test_settings_that_do_not_fit_are_refused(curated: Dataset, tmp_path: Path) -> None:
    matched = made(tmp_path / "matched", MATCHED, pool_rows(5))
    with pytest.raises(UsageError, match=r"has no column 'image' .*data.images=generated renders"):
        a_source(matched)
    with pytest.raises(UsageError, match="has no column 'caption'"):
        a_source(curated, text_column="caption")
    with pytest.raises(UsageError, match="which is one draw already"):
        a_source(curated, draw="image")
    with pytest.raises(ValueError, match="give two parts of the area"):
        Settings(path="x", crop=(1.0, 0.9))
    none = pool_rows(5)
    at = none.schema.get_field_index("keep_probability")
    none = MATCHED.validate(none.set_column(at, "keep_probability", pa.array(np.zeros(len(none)))))
    empty = made(tmp_path / "none", MATCHED, none)
    with pytest.raises(InputError, match="epoch 0 has no sample: draw=image kept none of"):
        a_source(empty, images="generated", draw="image").samples(1)


def test_a_picture_outside_the_pool_is_bad(tmp_path: Path) -> None:
    table = pool_rows(30)
    urls = table["url"].to_pylist()
    urls[0] = "https://example.org/a.jpg"
    at = table.schema.get_field_index("url")
    table = MATCHED.validate(table.set_column(at, "url", pa.array(urls)))
    source = a_source(made(tmp_path / "m", MATCHED, table), images="generated")
    source.batch(np.arange(len(table)))
    (note,) = source.replaced()
    assert note["reason"] == "not_in_the_pool" and note["id"] == table["pair_id"][0].as_py().hex()
