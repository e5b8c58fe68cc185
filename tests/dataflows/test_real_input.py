"""Real captions and alt texts, nothing generated, through the same commands as any input.

What the pipeline says of them is counted again here in plain Python from the source files.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.metaclip2 import reference
from curation.metaclip2.language import LANGUAGE_MAP, model_path
from dataflows.cli import main
from schemas.dataset import Dataset, open_dataset
from schemas.ids import image_id, pair_id

pytestmark = pytest.mark.slow

STAMPS = "tuxpaint-captions/images_captions.parquet"
CLIPART = "openclipart-alttext/images_alttext.parquet"
WEB = "web-alttext-en/alttext.jsonl.gz"


@dataclass(frozen=True)
class Text:
    """One text of a source file: the identity of its image, and how the pool must hold it."""

    image: bytes
    text: str
    source: int

    @property
    def pair(self) -> bytes:
        return pair_id(self.image, self.text)


def captions(data: Path) -> Iterator[Text]:
    """Every text of the three sources in their order, by nothing but the files themselves."""
    stamps = pq.read_table(data / STAMPS, columns=["image", "captions"])
    for row in stamps.to_pylist():
        identity = image_id(sha256=hashlib.sha256(row["image"]).digest())
        for text in json.loads(row["captions"]).values():
            yield from (Text(identity, t, 0) for t in (text if isinstance(text, list) else [text]))
    clipart = pq.read_table(data / CLIPART, columns=["image", "title", "description", "keywords"])
    for row in clipart.to_pylist():
        identity = image_id(sha256=hashlib.sha256(row["image"]).digest())
        for text in (row["title"], row["description"], *row["keywords"]):
            yield Text(identity, text, 1)
    with gzip.open(data / WEB, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield Text(image_id(key=str(row["id"])), row["text"], 2)


def cleaned(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ").strip()


@dataclass(frozen=True)
class Real:
    """A finished run over the three sources, and what plain Python found in these."""

    run: Path
    records: tuple[Path, ...]
    texts: list[Text]

    def dataset(self, stage: str) -> Dataset:
        return open_dataset(self.run / stage)

    def rows(self, stage: str, *columns: str) -> list[dict[str, Any]]:
        tables = self.dataset(stage).tables(columns=list(columns))
        return [row for table in tables for row in table.to_pylist()]


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    work = tmp_path_factory.mktemp("real")
    inputs = {
        "stamps": (STAMPS, "columns.text=captions", "columns.text_format=json"),
        "clipart": (CLIPART, "columns.text=title,description,keywords"),
        "web": (WEB, "columns.text=text", "columns.id=id"),
    }
    for name, (file, *columns) in inputs.items():
        words = [f"input={shared_data / file}", *columns, f"output={work / name}"]
        assert main(["run", "ingest", *words]) == 0
    records = tuple(work / name / "records" for name in inputs)
    run = work / "run"
    words = [f"input={','.join(map(str, records))}", "metadata=builtin", "p=0.06", f"output={run}"]
    assert main(["run", "metaclip2", *words]) == 0
    assert main(["report", str(run)]) == 0
    texts = [Text(t.image, cleaned(t.text), t.source) for t in captions(shared_data) if t.text]
    return Real(run, records, texts)


def counted(dataset: Dataset) -> dict[tuple[str, str, str], int]:
    return {
        (row["unit"], row["kind"], row["reason"]): row["count"] for row in dataset.manifest.counts
    }


def test_ingest_finds_what_the_files_hold(real: Real) -> None:
    per_source = Counter(text.source for text in real.texts)
    for number, (place, rows, pictures) in enumerate(
        zip(real.records, (600, 600, 5000), (600, 600, 0), strict=True)
    ):
        dataset = open_dataset(place)
        assert dataset.manifest.rows == rows
        assert dataset.manifest.stats["with_image"] == pictures
        lists = polars.read_parquet(place / "data" / "*.parquet")["texts"].list.len()
        assert lists.sum() == per_source[number]
        assert dataset.manifest.inputs[0]["checksum"].startswith("blake2b-256:")


def test_the_pool_holds_each_pair_once_and_the_rest_is_counted(real: Real) -> None:
    pool = real.dataset("pool")
    filled = [text for text in real.texts if text.text]
    firsts: dict[bytes, Text] = {}
    for text in filled:
        firsts.setdefault(text.pair, text)
    expected = {
        ("record", "in", ""): 6200,
        ("record", "out", ""): 6200,
        ("text", "created", "exploded"): len(real.texts),
        ("text", "rejected", "empty_text"): len(real.texts) - len(filled),
        ("text", "merged", "duplicate_pair"): len(filled) - len(firsts),
        ("text", "out", ""): len(firsts),
    }
    assert counted(pool) == {key: count for key, count in expected.items() if count}
    rows = real.rows("pool", "pair_id", "image_id", "text", "source")
    assert {row["pair_id"]: Text(row["image_id"], row["text"], row["source"]) for row in rows} == (
        firsts
    )
    assert len(rows) == len(firsts)
    assert pool.manifest.stats["images"] == len({text.image for text in filled})


@cache
def fasttext_model() -> Any:
    import fasttext

    return fasttext.load_model(str(model_path()))


def label(text: str) -> str:
    labels, _ = fasttext_model().predict(text, k=1)
    return labels[0].removeprefix("__label__") if labels else ""


def test_languages_are_those_of_the_model_asked_text_by_text(real: Real) -> None:
    keys = set(polars.read_parquet(real.run / "metadata" / "data" / "*.parquet")["metadata"])
    labels = {row["pair_id"]: label(row["text"]) for row in real.rows("pool", "pair_id", "text")}
    matches = real.dataset("matches")
    identified = matches.manifest.stats["identified"]
    assert {name: row["texts"] for name, row in identified.items()} == Counter(labels.values())
    mapped = {pair: LANGUAGE_MAP.get(name, "other") for pair, name in labels.items()}
    without = sum(key not in keys for key in mapped.values())
    assert counted(matches)[("text", "rejected", "language_without_metadata")] == without
    for row in real.rows("matches", "pair_id", "language", "metadata"):
        assert row["language"] == labels[row["pair_id"]]
        assert row["metadata"] == mapped[row["pair_id"]]


def test_a_sample_of_texts_matches_what_a_plain_search_finds(real: Real) -> None:
    """Every 160th text against every entry of its language, by the definition."""
    pool = sorted(real.rows("pool", "pair_id", "text"), key=lambda row: row["pair_id"])[::160]
    found = {row["pair_id"]: row["entries"] for row in real.rows("matches", "pair_id", "entries")}
    metadata = polars.read_parquet(real.run / "metadata" / "data" / "*.parquet")
    by_key: dict[str, list[dict[str, Any]]] = {}
    for row in pool:
        by_key.setdefault(LANGUAGE_MAP.get(label(row["text"]), "other"), []).append(row)
    checked = 0
    for key, rows in by_key.items():
        entries = metadata.filter(polars.col("metadata") == key)["text"].to_list()
        texts = [row["text"] for row in rows]
        for row, ids in zip(rows, reference.match(texts, entries, "repaired"), strict=True):
            assert found.get(row["pair_id"], []) == ids, row["text"]
            checked += bool(ids)
    assert checked >= 50


def test_counts_are_those_of_a_counter(real: Real) -> None:
    counts: Counter[tuple[str, int]] = Counter()
    for row in real.rows("matches", "metadata", "entries"):
        counts.update((row["metadata"], entry) for entry in row["entries"])
    rows = real.rows("counts", "metadata", "entry", "count")
    assert {(row["metadata"], row["entry"]): row["count"] for row in rows} == counts


def test_small_pools_make_t_1_and_the_report_says_why(real: Real) -> None:
    balance = real.dataset("balance").manifest
    ones = {key for key, row in balance.stats["languages"].items() if row["t"] == 1}
    assert "en" in ones and len(ones) > 20
    page = (real.run / "report.html").read_text(encoding="utf-8")
    for key in ones:
        (warning,) = (text for text in balance.warnings if text.startswith(f"{key}: t = 1"))
        assert "too few texts for so many entries" in warning
        assert html.escape(warning) in page


def test_matched_and_curated_balance(real: Real) -> None:
    matched, curated = counted(real.dataset("matched")), counted(real.dataset("curated"))
    rows = real.rows("matched", "image_id", "pair_id")
    images = len({row["image_id"] for row in rows})
    assert matched[("text", "in", "")] == matched[("text", "out", "")] == len(rows)
    assert curated[("text", "sampled_out", "image_has_another_text")] == len(rows) - images
    kept = curated[("text", "out", "")]
    assert kept + curated[("text", "sampled_out", "not_drawn")] == images
    total = real.dataset("matched").manifest.stats["total"]
    assert abs(kept - total["expected"]) <= 4 * total["variance"] ** 0.5


def test_ordinary_readers_see_every_row_and_every_picture(real: Real, tmp_path: Path) -> None:
    import datasets

    manifest = real.dataset("curated").manifest
    place = real.run / "curated"
    frame = polars.scan_parquet(place / "data" / "*.parquet").drop("image").collect()
    opened = datasets.load_dataset(str(place), split="train", cache_dir=str(tmp_path))
    assert frame.height == opened.num_rows == manifest.totals["rows"]
    pictures = 0
    for row in opened:
        if row["source"] == 2:
            assert row["image"] is None  # the alt texts came without pictures
            continue
        assert isinstance(row["image"], Image.Image)
        row["image"].load()
        pictures += 1
    assert pictures == manifest.stats["pictures"] > 300


def test_every_curated_picture_is_the_one_of_its_record(real: Real) -> None:
    for row in real.rows("curated", "image_id", "image", "source"):
        if row["source"] < 2:
            digest = hashlib.sha256(row["image"]["bytes"]).digest()
            assert row["image_id"] == image_id(sha256=digest)


def test_raw_files_are_taken_as_they_are(
    real: Real, shared_data: Path, small_metadata: Path, tmp_path: Path
) -> None:
    """One command from the file gives the rows of ingest and a run over its records."""
    rest = [f"metadata={small_metadata}", "p=0.06", "--limit", "700"]
    raw = ["columns.text=captions", "columns.text_format=json"]
    for place, words in (
        ("raw", [f"input={shared_data / STAMPS}", *raw]),
        ("committed", [f"input={real.records[0]}"]),
    ):
        words = [*words, f"output={tmp_path / place}"]
        assert main(["run", "metaclip2", *words, *rest]) == 0
    frames = [
        polars.read_parquet(tmp_path / place / "curated" / "data" / "*.parquet")
        for place in ("raw", "committed")
    ]
    assert frames[0].equals(frames[1])
    assert frames[0].height > 50
