"""Small datasets for the tests of `schemas`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas import ids
from schemas.commit import commit
from schemas.dataset import put_blob
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.storage import Storage, storage
from schemas.table_schemas import COUNTS, CURATED, DEAD_LETTERS, POOL, SchemaSpec
from schemas.writer import Shard, ShardWriter


def pool(rows: int, seed: int = 0) -> pa.Table:
    """POOL rows in order: several texts an image, some scores null."""
    rng = np.random.default_rng(seed)
    images = [ids.image_id(url=f"https://example.org/{seed}/{i // 3}") for i in range(rows)]
    texts = [" ".join(f"w{w}" for w in rng.integers(0, 999, rng.integers(1, 12))) for _ in images]
    table = pa.table(
        {
            "pair_id": ids.id_array(ids.pair_id(i, t) for i, t in zip(images, texts, strict=True)),
            "image_id": ids.id_array(images),
            "url": [None if i % 5 == 0 else f"https://example.org/{i}" for i in range(rows)],
            "key": ["alt"] * rows,
            "text": texts,
            "source": np.zeros(rows, np.int32),
            "shard": np.zeros(rows, np.int32),
            "row": np.arange(rows),
            "score": [None if i % 4 == 0 else i / 7 for i in range(rows)],
        }
    )
    return POOL.validate(table).sort_by([("image_id", "ascending"), ("pair_id", "ascending")])


def curated(rows: int) -> pa.Table:
    """CURATED rows with PNG images of 4x4 pixels."""
    from PIL import Image

    base = pool(rows)
    cells = []
    for i in range(rows):
        sink = io.BytesIO()
        Image.new("RGB", (4, 4), (i % 256, 10, 20)).save(sink, "PNG")
        cells.append({"bytes": sink.getvalue(), "path": None})
    extra = {
        "language": ["en"] * rows,
        "metadata": ["en"] * rows,
        "entries": [[i, i + 1] for i in range(rows)],
        "image_texts": np.ones(rows, np.int32),
        "keep_probability": np.linspace(0, 1, rows),
        "image": pa.array(cells, CURATED.arrow.field("image").type),
    }
    for name, values in extra.items():
        base = base.append_column(name, pa.array(values) if isinstance(values, list) else [values])
    return CURATED.validate(base)


def counts(rows: int, metadata: str = "en") -> pa.Table:
    """COUNTS rows in order."""
    numbers = np.arange(rows)
    return COUNTS.validate(
        pa.table({"metadata": [metadata] * rows, "entry": numbers, "count": numbers + 1})
    )


def write(
    root: Storage, spec: SchemaSpec, table: pa.Table, target_bytes: int = 1 << 28
) -> list[Shard]:
    with ShardWriter(root, spec, target_bytes=target_bytes) as writer:
        writer.write(table)
    return writer.close()


def shards_of(
    folder: Path,
    spec: SchemaSpec,
    tables: list[pa.Table],
    target_bytes: int = 1 << 28,
    **options: object,
) -> list[Shard]:
    """Write tables one after the other."""
    with ShardWriter(storage(folder), spec, target_bytes=target_bytes, **options) as made:  # type: ignore[arg-type]
        for table in tables:
            made.write(table)
    return made.close()


def balanced(spec: SchemaSpec, table: pa.Table) -> Ledger:
    """A ledger that says every row came in and went out."""
    total = ids.id_sum(table.column(spec.id_column)) if spec.id_column else 0
    ledger = Ledger()
    ledger.add(spec.unit, "in", "", table.num_rows, total)
    ledger.add(spec.unit, "out", "", table.num_rows, total)
    return ledger


def head(spec: SchemaSpec, table: pa.Table, **fields: object) -> Manifest:
    """An uncommitted head for a table."""
    fields.setdefault("recipe", {"name": "demo", "stage": spec.name})
    fields.setdefault("counts", balanced(spec, table).rows())
    return Manifest(schema={"name": spec.name, "version": spec.version}, **fields)  # type: ignore[arg-type]


def committed(
    root: Storage,
    spec: SchemaSpec = POOL,
    table: pa.Table | None = None,
    target_bytes: int = 1 << 28,
    **fields: object,
) -> Manifest:
    """Write and commit a table."""
    rows = pool(50) if table is None else table
    return commit(root, head(spec, rows, **fields), write(root, spec, rows, target_bytes))


def small_run(root: Storage, work: Path) -> Manifest:
    """A run like a stage's: attempts, a blob, dead letters, several shards, two commits."""
    table = pool(400)
    source = work / "blob.bin"
    source.write_bytes(b"automaton" * 1000)
    blob = put_blob(root, source)
    dead = pa.table(
        {
            "stage": ["pool"],
            "reason": ["bad_utf8"],
            "error": ["invalid start byte"],
            "source": ["file.parquet"],
            "position": [7],
            "row": [b"\x00"],
        }
    )
    letters = root.sibling(f"{root.name}.dead_letters")
    committed(letters, DEAD_LETTERS, dead, counts=[])
    key = "stage-key"
    shards: list[Shard] = []
    for unit, start in enumerate((0, 200)):
        rows = table.slice(start, 200)
        root.create(f".headrace/attempts/{key}/{unit}.json", b'{"rows": 200}')
        shards += write(root, POOL, rows, target_bytes=9_000)
    fields = {"blobs": {"automaton": blob}, "stage_key": key, "seed": 3, "config": {"p": 0.5}}
    return commit(root, head(POOL, table, **fields), shards, parents={"text": 400})
