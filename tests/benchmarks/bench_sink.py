"""Dataset sink against bare ``pyarrow.parquet.write_table``: marginal rates, as a ratio.

Ours: validation, order check, id sums, canonical cuts, checksums, fsync and the commit. Peer: one
``write_table`` of the whole table, same codecs, nothing else; beside it the same with an fsync,
which is what a durable file costs. All in this process, in turn, each with N and 4N rows; the marginal time
is T(4N) - T(N). ``cpu_ratio`` compares processor seconds, which other load disturbs less.
"matches" is text, drawn from a generated lexicon by Zipf's law; "records" is 40 KB images, not
compressed, where the peer only copies memory. Run it as a script:
``python tests/benchmarks/bench_sink.py [--rows 4N] [--images 4N] [--runs 7] [--dir DIR]``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas import ids
from schemas.commit import commit
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.storage import storage
from schemas.table_schemas import MATCHES, RECORDS, SchemaSpec
from schemas.writer import ShardWriter


def matches(rows: int) -> pa.Table:
    """Rows like those the matching pass writes: two ids, URL, a text of 3 to 25 words, entries."""
    rng = np.random.default_rng(7)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    lexicon = np.array(["".join(rng.choice(letters, n)) for n in rng.integers(2, 11, 60_000)])
    weights = 1 / np.arange(1, len(lexicon) + 1)
    counts = rng.integers(3, 26, rows)
    words = rng.choice(lexicon, int(counts.sum()), p=weights / weights.sum())
    ends = np.concatenate([[0], np.cumsum(counts)])
    text = [" ".join(words[a:b]) for a, b in itertools.pairwise(ends)]
    raw = np.sort(rng.integers(0, 2**63, rows, np.int64).astype(">u8"))
    image = np.concatenate([raw, rng.integers(0, 2**63, rows)]).astype(">u8").reshape(2, rows).T
    hits = rng.integers(1, 9, rows)
    entries = np.minimum(rng.zipf(1.2, int(hits.sum())), 500_000).astype(np.uint32)
    offsets = np.concatenate([[0], np.cumsum(hits)]).astype(np.int32)
    fixed = np.ascontiguousarray(image).tobytes()
    table = {
        "pair_id": pa.FixedSizeBinaryArray.from_buffers(
            ids.ID_TYPE, rows, [None, pa.py_buffer(rng.bytes(16 * rows))]
        ),
        "image_id": pa.FixedSizeBinaryArray.from_buffers(
            ids.ID_TYPE, rows, [None, pa.py_buffer(fixed)]
        ),
        "url": [
            f"https://example.org/{i * 7919 % 1_000_003}/{t[:12]}.jpg" for i, t in enumerate(text)
        ],
        "key": np.full(rows, "alt"),
        "text": text,
        "source": np.zeros(rows, np.int32),
        "shard": np.zeros(rows, np.int32),
        "row": np.arange(rows),
        "score": rng.random(rows),
        "language": rng.choice(["en", "de", "fr", "es", "vi", "sw", "ja"], rows),
        "metadata": rng.choice(["en", "de", "fr", "es", "vi", "sw", "ja"], rows),
        "entries": pa.ListArray.from_arrays(offsets, entries),
    }
    return MATCHES.validate(pa.table(table))


def images(rows: int) -> pa.Table:
    """Records with 40 KB of incompressible image bytes each."""
    rng = np.random.default_rng(7)
    blob = rng.bytes(40_000 * rows)
    cells = [{"bytes": blob[i * 40_000 : (i + 1) * 40_000], "path": None} for i in range(rows)]
    table = {
        "image_id": ids.id_array(ids.id128(str(i).encode()) for i in range(rows)),
        "texts": [[{"key": "alt", "text": f"picture {i}"}] for i in range(rows)],
        "image": pa.array(cells, RECORDS.arrow.field("image").type),
        "file": np.zeros(rows, np.int32),
        "position": np.arange(rows),
    }
    return RECORDS.validate(pa.table(table))


def stream(table: pa.Table) -> list[pa.Table]:
    """Tables of 8 MB with memory of their own, as a stage receives them."""
    step = max(1, table.num_rows * (8 << 20) // table.nbytes)
    parts = [table.slice(first, step) for first in range(0, table.num_rows, step)]
    return [part.take(np.arange(part.num_rows)) for part in parts]


def ours(spec: SchemaSpec, tables: list[pa.Table], folder: Path) -> None:
    """Write and commit."""
    root = storage(folder / "ours")
    with ShardWriter(root, spec) as writer:
        for table in tables:
            writer.write(table)
    rows = sum(table.num_rows for table in tables)
    ledger = Ledger()
    ledger.add(spec.unit, "in", "", rows)
    ledger.add(spec.unit, "out", "", rows)
    head = Manifest(schema={"name": spec.name, "version": spec.version}, counts=ledger.rows())
    commit(root, head, writer.close())


def peer(table: pa.Table, folder: Path, codec: dict[str, str], durable: bool) -> None:
    """Call ``write_table`` with its defaults and the same codecs."""
    pq.write_table(table, folder / "peer.parquet", compression=codec)
    if durable:
        with open(folder / "peer.parquet", "rb") as file:
            os.fsync(file.fileno())


def timed(action: Callable[[], None], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of an action in an empty folder on a settled disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.sync()
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(spec: SchemaSpec, whole: pa.Table, runs: int, folder: Path) -> dict[str, object]:
    """Alternate ours and peers on N and 4N rows; return ratios of marginal rates."""
    sink = pa.BufferOutputStream()
    pq.write_table(whole.slice(0, 1), sink)
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    paths = [leaves.column(i).path for i in range(len(leaves))]
    codec = {p: "none" if p == "image.bytes" else "zstd" for p in paths}
    quarter = whole.slice(0, whole.num_rows // 4)
    streams = {t.num_rows: stream(t) for t in (quarter, whole)}
    marginal: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": [], "durable": []}
    for run in range(runs + 1):
        for name in sorted(marginal, reverse=bool(run % 2)):
            seconds = []
            for table in (quarter, whole):

                def action(name: str = name, table: pa.Table = table) -> None:
                    if name == "ours":
                        ours(spec, streams[table.num_rows], folder)
                    else:
                        peer(table, folder, codec, name == "durable")

                seconds.append(timed(action, folder))
            if run:  # the first warms up
                marginal[name].append(
                    (seconds[1][0] - seconds[0][0], seconds[1][1] - seconds[0][1])
                )
    shutil.rmtree(folder, ignore_errors=True)
    megabytes = (whole.nbytes - quarter.nbytes) / 1e6

    def ratios(name: str, kind: int) -> list[float]:
        pairs = zip(marginal[name], marginal["ours"], strict=True)
        return sorted(p[kind] / o[kind] for p, o in pairs)

    wall, durable = ratios("peer", 0), ratios("durable", 0)
    return {
        "case": spec.name,
        "megabytes": round(megabytes),
        "ours_mb_s": round(megabytes / statistics.median(o for o, _ in marginal["ours"])),
        "peer_mb_s": round(megabytes / statistics.median(p for p, _ in marginal["peer"])),
        "ratio_median": round(statistics.median(wall), 3),
        "ratio_range": [round(wall[0], 3), round(wall[-1], 3)],
        "durable_ratio_median": round(statistics.median(durable), 3),
        "durable_ratio_range": [round(durable[0], 3), round(durable[-1], 3)],
        "cpu_ratio_median": round(statistics.median(ratios("peer", 1)), 3),
    }


def main(argv: list[str] | None = None) -> int:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args(argv)
    for spec, make, rows in ((MATCHES, matches, args.rows), (RECORDS, images, args.images)):
        folder = args.dir / f"bench-sink-{os.getpid()}"
        print(json.dumps(measure(spec, make(rows), args.runs, folder)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
