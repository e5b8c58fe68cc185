"""Kill the small run of ``tests/schemas/samples.py`` at its storage operations; print JSON.

``python -m tests.faults.kill_small_run ROOT --modes torn,after --step 1``; ROOT is a directory or
an object store's URL. After each kill the same run must end with the digest of an undisturbed
one, the dataset must verify, and polars must count the manifest's rows.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import polars

from schemas.manifest import Manifest
from schemas.storage import Storage, storage
from schemas.verify import verify
from tests.faults import matrix
from tests.schemas import samples


def rows_for_polars(root: Storage) -> int:
    """Rows that polars sees in ``data/``."""
    if root.is_local:
        return (
            polars.scan_parquet(f"{root.url}/data/*.parquet").select(polars.len()).collect().item()
        )
    return sum(polars.read_parquet(root.read_bytes(k)).height for k in root.list("data"))


def check(root: Storage, reference: str) -> None:
    """Raise unless ``root`` holds the reference dataset, whole and without litter."""
    manifest = Manifest.load(root)
    assert manifest.digest == reference, f"{manifest.digest} is not {reference}"
    letters = root.sibling(f"{root.name}.dead_letters")
    for place in (root, letters):
        assert verify(place) == [], verify(place)
    litter = [k for k in root.list() if k.startswith((".headrace/tmp", ".headrace/attempts"))]
    assert not litter, litter
    assert root.exists("README.md")
    found = rows_for_polars(root)
    assert found == manifest.rows, f"polars counts {found} rows, the manifest {manifest.rows}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--modes", default="torn,after")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--again", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    place = storage(args.root)
    if not place.is_local:
        importlib.import_module("s3fs")  # once here, not in every forked child
        place.scratch()  # makes the local directories, which every later run finds
    root = place.at("pool")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        reference = samples.small_run(storage(work / "reference"), work).digest

        def fresh() -> None:
            if place.is_local:
                for entry in Path(place.url).iterdir():
                    shutil.rmtree(entry)
            for key in place.list():
                place.delete(key)

        found = matrix.kill_everywhere(
            fresh,
            lambda: samples.small_run(root, work),
            lambda label: check(root, reference),
            modes=args.modes.split(","),
            step=args.step,
            again=args.again,
            only=args.only,
        )
    kinds = Counter(line.split()[0] for line in found.operations)
    report = {
        "operations": len(found.operations),
        "kinds": dict(kinds),
        "killed": found.killed,
        "completed": found.completed,
        "digest": reference,
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
