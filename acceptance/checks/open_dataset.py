"""`open_dataset DATASET`: ordinary readers see what the manifest says, pictures included."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from acceptance.checks.common import finish


def main(folder: str) -> int:
    import datasets
    import polars
    from PIL import Image

    path = Path(folder)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    rows = manifest["totals"]["rows"]
    with tempfile.TemporaryDirectory() as cache:
        by_card = datasets.load_dataset(str(path), split="train", cache_dir=cache)
        by_folder = datasets.load_dataset(
            "parquet", data_dir=str(path / "data"), split="train", cache_dir=cache
        )
        pictures = 0
        for row in by_card:
            if isinstance(row["image"], Image.Image):
                row["image"].load()
                pictures += 1
        values = {
            "manifest_rows": rows,
            "datasets_rows": by_card.num_rows,
            "datasets_folder_rows": by_folder.num_rows,
            "polars_rows": polars.scan_parquet(path / "data" / "*.parquet")
            .select(polars.len())
            .collect()
            .item(),
            "pictures": pictures,
        }
    wrong = [f"{name} is {value}, not {rows}" for name, value in values.items() if value != rows]
    if not rows:
        wrong.append("the dataset is empty")
    return finish(values, wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
