"""Undecoded rows into batches: our reader, litData's StreamingDataset, and `datasets` streaming.

Each reads all rows, shuffled, into batches of 256: a dict of lists (text as str, ids and images as
bytes, or a view of them), one process, no loader workers. The same rows everywhere: "images" has
40 KB of incompressible bytes and an id; "texts" an id, a text of 3 to 25 words and a URL. Row groups
or chunks are in random order and rows are shuffled in windows of 256, which is litData's own default
(`item_shuffle_window`) and its fastest; `datasets` has `shuffle(buffer_size=256)`.

* ours: a committed dataset; `Reader.lists`. Bytes are checked: each shard's SHA-256 is compared with
  the manifest's when the process first opens it: inside "cold", before "warm"; `checksum` is the rate
  of that alone. No derived cache.
* litData: `optimize` with 64 MB chunks; it checks no bytes. Its torchvision part is not installed.
* datasets: `load_dataset("parquet", streaming=True)` over our files; images are not decoded.

An epoch ends after 3 s if it is not over (`datasets` with images). "warm": one process, in turn, after
a first round. "cold": a fresh process each time, in turn, files flushed and dropped from the page
cache (posix_fadvise), the time from opening the dataset to the last row, imports before. Run it as
a script: ``python tests/benchmarks/bench_reading.py [--runs 7] [--images 16000] [--texts 400000]
[--cases ...]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BATCH = WINDOW = 256
SECONDS = 3.0
ROOT = Path(__file__).resolve().parents[2]
COLUMNS = {"images": ["image_id", "image"], "texts": ["pair_id", "text", "url"]}
PEERS = ("ours", "litdata", "datasets")
CASES = ("images_warm", "images_cold", "texts_warm", "texts_cold")
Read = Callable[[str, Path, int], Iterator[int]]
"""Reads an epoch of a kind in a folder; yields the rows of each batch."""


def prepare(kind: str, rows: int, folder: Path) -> None:
    """Write a kind of rows as a committed dataset, then as litData's chunks."""
    import litdata

    from schemas.dataset import open_dataset
    from schemas.table_schemas import MATCHES, RECORDS
    from tests.benchmarks import bench_sink

    made = bench_sink.images(rows) if kind == "images" else bench_sink.matches(rows)
    (folder / kind).mkdir()
    bench_sink.ours(RECORDS if kind == "images" else MATCHES, [made], folder / kind)
    dataset = open_dataset(folder / kind / "ours")
    groups = [(i, g) for i, s in enumerate(dataset.shards()) for g in range(s.row_groups)]

    def values(place: tuple[int, int]) -> Iterator[dict[str, Any]]:
        for row in dataset.read_row_group(*place, COLUMNS[kind]).to_pylist():
            if kind == "images":
                row["image"] = row["image"]["bytes"]
            yield row

    litdata.optimize(
        fn=values, inputs=groups, output_dir=str(folder / kind / "litdata"), chunk_bytes="64MB",
        num_workers=1, start_method="fork", verbose=False,
    )  # fmt: skip


def ours() -> Read:
    """Ours."""
    import pandas  # noqa: F401  pyarrow imports it at its first conversion, and imports are not timed

    from trainer.reader import Reader

    def read(kind: str, folder: Path, epoch: int) -> Iterator[int]:
        reader = Reader(folder / "ours", epoch=epoch, window=WINDOW, columns=COLUMNS[kind])
        for first in range(0, len(reader), BATCH):
            batch = reader.lists(range(first, min(first + BATCH, len(reader))))
            yield len(batch[COLUMNS[kind][0]])

    return read


def checksum() -> Read:
    """No reading: our shards hashed as `ours` does before it reads, the least that "cold" can take."""
    from schemas.dataset import open_dataset
    from trainer.shards import Shards

    def read(kind: str, folder: Path, epoch: int) -> Iterator[int]:
        dataset = open_dataset(folder / "ours")
        Shards(dataset).check(range(len(dataset.shards())))
        yield dataset.manifest.rows

    return read


def by_litdata() -> Read:
    """LitData, its items gathered in lists: less work than its loader's collating."""
    import litdata

    def read(kind: str, folder: Path, epoch: int) -> Iterator[int]:
        names = COLUMNS[kind]
        batch: dict[str, list[Any]] = {name: [] for name in names}
        dataset = litdata.StreamingDataset(
            str(folder / "litdata"), shuffle=True, seed=epoch, item_shuffle_window=WINDOW
        )
        for item in dataset:
            for name in names:
                batch[name].append(item[name])
            if len(batch[names[0]]) == BATCH:
                yield BATCH
                batch = {name: [] for name in names}

    return read


def by_datasets() -> Read:
    """The `datasets` library's streaming."""
    import datasets

    datasets.disable_progress_bars()

    def read(kind: str, folder: Path, epoch: int) -> Iterator[int]:
        stream = datasets.load_dataset(
            "parquet", data_dir=str(folder / "ours" / "data"), split="train", streaming=True,
            columns=COLUMNS[kind],
        )  # fmt: skip
        if kind == "images":
            stream = stream.cast_column("image", datasets.Image(decode=False))
        shuffled = stream.shuffle(seed=epoch, buffer_size=WINDOW)
        for batch in shuffled.iter(batch_size=BATCH):
            yield len(batch[COLUMNS[kind][0]])

    return read


WAYS: dict[str, Callable[[], Read]] = {
    "ours": ours,
    "litdata": by_litdata,
    "datasets": by_datasets,
    "checksum": checksum,
}


def rate(read: Read, kind: str, folder: Path, epoch: int) -> float:
    """Rows a second of one epoch, or of its first 3 s."""
    rows, start = 0, time.perf_counter()
    for batch in read(kind, folder, epoch):
        rows += batch
        if time.perf_counter() - start > SECONDS:
            break
    return rows / (time.perf_counter() - start)


def cold(peer: str, kind: str, folder: Path, epoch: int) -> float:
    """`rate` in a fresh process, files out of the page cache."""
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
    command = [sys.executable, __file__, "--one", peer, kind, str(folder), str(epoch)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return float(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def measure(case: str, runs: int, folder: Path) -> dict[str, Any]:
    """One case's line: ratios of our rate to each peer's, and rows a second."""
    kind, state = case.split("_")
    rates: dict[str, list[float]] = {peer: [] for peer in WAYS}
    peers = (*PEERS, "checksum") if state == "cold" else PEERS
    ways = {peer: WAYS[peer]() for peer in peers}
    for run in range(runs + 1):
        for peer in peers:
            if state == "cold":
                found = cold(peer, kind, folder / kind, run) if run else 0.0
            else:
                found = rate(ways[peer], kind, folder / kind, run)
            if run:  # the first round is not warm
                rates[peer].append(found)
    line: dict[str, Any] = {"case": case}
    for peer in ("litdata", "datasets"):
        pairs = zip(rates["ours"], rates[peer], strict=True)
        line[peer] = spread([mine / theirs for mine, theirs in pairs])
    line["rows_per_s"] = {
        peer: round(statistics.median(found)) for peer, found in rates.items() if found
    }
    return line


def main() -> None:
    """Print one JSON line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--texts", type=int, default=400_000)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--one", nargs=4, metavar=("PEER", "KIND", "FOLDER", "EPOCH"))
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    if args.one:
        peer, kind, folder, epoch = args.one
        print(rate(WAYS[peer](), kind, Path(folder), int(epoch)))
        return
    root = Path(tempfile.mkdtemp(prefix="bench-reading-"))
    try:
        for kind, rows in (("images", args.images), ("texts", args.texts)):
            if any(case.startswith(kind) for case in args.cases):
                prepare(kind, rows, root)
        for case in args.cases:
            print(json.dumps(measure(case, args.runs, root)), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
