"""A small curated dataset of generated pairs, and a run that trained on it for two steps."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curation.pool.config import PoolConfig
from curation.pool.generate import generate
from curation.pool.render import render
from schemas import ids
from schemas.storage import storage
from schemas.table_schemas import CURATED
from tests.schemas import samples

LICENCE = "Tux Paint stamps, GPL-2.0-or-later"
LANGUAGES = ("en", "ja", "de")


def curated(root: Path, records: int = 60, broken: int | None = None) -> Path:
    """Commit the texts of the first records with their pictures; ``broken`` spoils one picture."""
    rows = []
    config = PoolConfig(noise=0, duplicates=0)
    for k, record in enumerate(generate(5, 0, records, config).to_pylist()):
        picture = b"\xff\xd8\xff spoiled" if k == broken else render(record["url"], 40)
        for n, text in enumerate(record["texts"]):
            rows.append(
                {
                    "pair_id": ids.pair_id(record["image_id"], f"{n} {text['text']}"),
                    "image_id": record["image_id"],
                    "url": record["url"],
                    "key": text["key"],
                    # Every tenth record says the same words: captions of the web repeat.
                    "text": text["text"] if k % 10 else "a picture",
                    "source": 0,
                    "shard": 0,
                    "row": k,
                    "language": LANGUAGES[k % 3],
                    "metadata": LANGUAGES[k % 3],
                    "entries": [1],
                    "image_texts": len(record["texts"]),
                    "keep_probability": 1.0,
                    "image": {"bytes": picture, "path": f"{k}.jpg"},
                }
            )
    rows.sort(key=lambda row: (row["image_id"], row["pair_id"]))
    plain = pa.schema([pa.field(f.name, f.type) for f in CURATED.arrow])
    table = CURATED.validate(pa.Table.from_pylist(rows, schema=plain))
    samples.committed(
        storage(root), CURATED, table, seed=5, licence=[LICENCE], warnings=["generated *pictures*"]
    )
    return root


def trained(output: Path, dataset: Path, *more: str) -> Path:
    """Train the tiny recipe for two steps; the run directory."""
    from trainer.config import load
    from trainer.engine.run import train
    from trainer.protocols import Place

    words = [f"data.path={dataset}", f"output={output}", "length.steps=2", "batch.size=16"]
    words += ["schedule.warmup=1", "tokenizer.vocabulary=500", "loaders=0", "seed=7"]
    assert train(load("metaclip2-tiny", [*words, *more]), Place()) == 0
    return output
