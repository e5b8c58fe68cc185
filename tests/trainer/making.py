"""Small datasets of many row groups, and what is read from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from schemas import ids
from schemas.dataset import Dataset, open_dataset
from schemas.storage import storage
from schemas.table_schemas import MATCHED, SchemaSpec
from tests.schemas import samples
from trainer.reader import Reader


def made(root: Path, spec: SchemaSpec, table: pa.Table, group_rows: int = 37) -> Dataset:
    """A dataset of several shards of small row groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schemas.writer.ROW_GROUP_ROWS", group_rows)
        samples.committed(storage(root), spec, table, target_bytes=14_000)
    return open_dataset(root)


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


def rows_of(reader: Reader, size: int = 64) -> list[int]:
    return [row for batch in reader.batches(size) for row in batch.table["row"].to_pylist()]


def pairs_of(reader: Reader) -> list[bytes]:
    return [pair for b in reader.batches(64) for pair in b.table["pair_id"].to_pylist()]


def a_reader(pool: Dataset, matched: Dataset, draw: str | None, window: int = 90) -> Reader:
    return Reader(matched if draw else pool, seed=5, epoch=2, draw=draw, window=window)
