"""Kill a whole small run of the MetaCLIP 2 recipe at its storage operations; print JSON.

``python -m tests.faults.kill_pipeline ROOT --modes torn --step 1 [--duplicates SEED]``; ROOT is a
directory or an object store's URL. After each kill the same command must end with the digests of an
undisturbed run, every dataset must verify, and polars and `datasets` must count the manifest's rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import polars

from curation.metaclip2 import language, match
from dataflows.cli import main as dataflows
from dataflows.engine import run as _run
from dataflows.pipelines.metaclip2 import automata, curated, matches, pool, recipe, sample
from dataflows.transforms import units
from kernels import matching
from schemas.dataset import open_dataset
from schemas.storage import Storage, storage
from schemas.verify import verify
from tests.dataflows.conftest import write_metadata
from tests.faults import duplicates, matrix

WARM = (language, match, _run, automata, curated, matches, pool, recipe, sample, units)
STAGES = (
    *("records", "pool", "automata", "matches", "counts"),
    *("sample", "balance", "matched", "curated"),
)
RECORDS = 240


def run_recipe(place: str, metadata: str) -> None:
    """The run that is killed: every stage, two units of records, two buckets."""
    code = dataflows(
        [
            *("run", "metaclip2", "input=generated", f"metadata={metadata}", f"output={place}"),
            *("p=0.06", f"pool.records={RECORDS}", "pool.unit=120", "buckets=2"),
            "pool.image_size=16",
        ]
    )
    if code:
        raise SystemExit(code)


def digests(place: Storage) -> dict[str, str]:
    """The digest of every stage's dataset."""
    return {name: open_dataset(place.at(name)).manifest.digest for name in STAGES}


def rows(place: Storage) -> tuple[int, int]:
    """Rows of a dataset as polars and as `datasets` count them."""
    with tempfile.TemporaryDirectory() as folder:
        for key in place.list("data"):
            Path(folder, Path(key).name).write_bytes(place.read_bytes(key))
        by_polars = polars.scan_parquet(f"{folder}/*.parquet").select(polars.len()).collect().item()
        from datasets import load_dataset

        loaded = load_dataset(
            "parquet", data_dir=folder, split="train", cache_dir=f"{folder}/cache"
        )
        return by_polars, len(loaded)


def check(place: Storage, reference: dict[str, str], count_all: bool) -> None:
    """Raise unless every stage is the reference's, whole, and without litter."""
    found = digests(place)
    assert found == reference, {k: v for k, v in found.items() if v != reference[k]}
    for name in STAGES:
        assert verify(place.at(name)) == [], verify(place.at(name))
    for name in STAGES if count_all else ("curated",):
        manifest = open_dataset(place.at(name)).manifest
        counted = rows(place.at(name))
        assert counted == (manifest.rows, manifest.rows), f"{name}: {counted} != {manifest.rows}"


def warm_up(metadata: str) -> None:
    """Load compiled code and libraries once, so that forked children start in milliseconds."""
    import datasets  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "automaton")
        matching.build(["dog", "犬"], mode="repaired", path=path)
        import pyarrow as pa

        matching.Automaton.open(path).match(pa.array(["a dog", "犬"]))
    open_dataset(metadata)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--modes", default="torn")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--again", type=int, default=1)
    parser.add_argument("--duplicates", type=int, help="seed: double and disorder all bundles too")
    args = parser.parse_args()
    started = time.monotonic()
    root = storage(args.root)
    with tempfile.TemporaryDirectory() as folder:
        metadata = f"{folder}/metadata"
        write_metadata(metadata, ("ja", "th"))
        warm_up(metadata)
        place = root.at("out")
        matrix_stage = _stage(place.url, metadata, args.duplicates)
        reference = f"{folder}/reference"
        if matrix.in_child(lambda: run_recipe(reference, metadata)):
            raise SystemExit("the reference run failed")
        expected = digests(storage(reference))

        def fresh() -> None:
            for key in place.list():
                place.delete(key)

        found = matrix.kill_everywhere(
            fresh,
            matrix_stage,
            lambda label: check(place, expected, count_all=label.endswith("0)")),
            modes=args.modes.split(","),
            step=args.step,
            again=args.again,
        )
        fresh()
    report = {
        "operations": len(found.operations),
        "kinds": dict(Counter(line.split()[0] for line in found.operations)),
        "killed": found.killed,
        "completed": found.completed,
        "duplicates_seed": args.duplicates,
        "modes": args.modes,
        "step": args.step,
        "seconds": round(time.monotonic() - started, 1),
        "digests": expected,
    }
    print(json.dumps(report))
    return 0


def _stage(place: str, metadata: str, seed: int | None) -> object:
    def stage() -> None:
        if seed is not None:
            duplicates.install(seed)
        run_recipe(place, metadata)
        if seed is not None:
            duplicates.late()

    return stage


if __name__ == "__main__":
    sys.exit(main())
