"""Stage `tokens` against `tokenizers` in a bare batch loop, same threads: marginal rates, as a ratio.

Ours: the stage as `dataflows run tokens` runs it, over a committed dataset of documents: reading,
encoding, statistics, canonical shards, checksums, fsync and the commit. Peer: ``encode_batch`` of
1,000 texts at a time that lie in memory as Python strings, ids thrown away; "fast" is the same with
``encode_batch_fast``, which keeps no offsets. All in this process, in turn, each over N and 4N MB of
the shipped corpus (copies that differ by a number, so no text is encoded twice); the marginal time is
T(4N) - T(N), so neither Beam's start nor planning counts. ``cpu_ratio`` compares processor seconds,
which other load disturbs less. The tokenizer is a byte-level BPE of 16,384
ids trained on the corpus, or any other: ``--tokenizer``. Run it as a script:
``python tests/benchmarks/bench_tokenise.py [--megabytes 4N] [--runs 5] [--quick] [--dir DIR]``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.text.tokenising import load_tokenizer
from curation.text.training import train_bpe
from dataflows.engine.run import RunSettings, run_graph
from dataflows.pipelines.tokens.recipe import Config, graph

CORPUS = Path(__file__).resolve().parents[2] / "data" / "text"
BATCH = 1_000


def corpus() -> list[str]:
    """Every text of the shipped corpus."""
    found = []
    for path in sorted(CORPUS.glob("*/*.jsonl.zst")):
        with pa.input_stream(str(path), compression="zstd") as stream:
            found += [json.loads(line)["text"] for line in stream.read().splitlines()]
    return found


def texts_of(megabytes: float, base: list[str]) -> list[str]:
    """So many megabytes of texts, no two of them equal."""
    found: list[str] = []
    left = megabytes * 1e6
    number = 0
    while left > 0:
        for text in base:
            found.append(f"{text}\n{number}")
            left -= len(found[-1].encode())
            number += 1
            if left <= 0:
                break
    return found


class Case:
    """Texts in memory, and the same as a committed dataset of documents."""

    def __init__(self, texts: list[str], tokenizer: Path, folder: Path) -> None:
        self.texts = texts
        self.bytes = sum(len(text.encode()) for text in texts)
        self.output = folder / "out"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"text": texts}), folder / "texts.parquet", row_group_size=20_000)
        self.graph = graph(
            Config(
                input=str(folder / "texts.parquet"),
                output=str(self.output),
                tokenizer=str(tokenizer),
                dedup="off",
            )
        )
        self.ours()

    def ours(self) -> None:
        """Run what is not committed: after the first time the stage `tokens` alone."""
        with contextlib.redirect_stderr(io.StringIO()):
            run_graph(self.graph, RunSettings(str(self.output)))

    def forget(self) -> None:
        """Remove the tokens."""
        shutil.rmtree(self.output / "tokens")


def bare(texts: list[str], encode: Callable[..., Any]) -> int:
    """Number of tokens, by a bare loop."""
    total = 0
    for first in range(0, len(texts), BATCH):
        total += sum(map(len, encode(texts[first : first + BATCH], add_special_tokens=False)))
    return total


def measure(cases: list[Case], tokenizer: Path, runs: int) -> dict[str, object]:
    """Alternate ours and the peers on both sizes; return ratios of marginal rates."""
    loaded = load_tokenizer(tokenizer.read_bytes(), str(tokenizer))
    encoders = {"peer": loaded.encode_batch, "fast": loaded.encode_batch_fast}
    marginal: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": [], "fast": []}
    tokens = 0
    for run in range(runs + 1):
        for name in sorted(marginal, reverse=bool(run % 2)):
            seconds: list[tuple[float, float]] = []
            for case in cases:
                if name == "ours":
                    case.forget()
                    os.sync()
                started, used = time.perf_counter(), time.process_time()
                if name == "ours":
                    case.ours()
                else:
                    tokens = bare(case.texts, encoders[name])
                seconds.append((time.perf_counter() - started, time.process_time() - used))
            if run:  # the first warms up
                (wall, cpu), (wall_4n, cpu_4n) = seconds
                marginal[name].append((wall_4n - wall, cpu_4n - cpu))
    megabytes = (cases[1].bytes - cases[0].bytes) / 1e6

    def ratios(name: str, kind: int) -> list[float]:
        pairs = zip(marginal[name], marginal["ours"], strict=True)
        return sorted(peer[kind] / ours[kind] for peer, ours in pairs)

    wall = ratios("peer", 0)
    return {
        "case": "tokens",
        "megabytes": round(megabytes),
        "tokens": tokens,
        "threads": int(os.environ.get("RAYON_NUM_THREADS", 0)) or os.cpu_count(),
        "ours_mb_s": round(megabytes / statistics.median(o for o, _ in marginal["ours"]), 2),
        "peer_mb_s": round(megabytes / statistics.median(p for p, _ in marginal["peer"]), 2),
        "ratio_median": round(statistics.median(wall), 3),
        "ratio_range": [round(wall[0], 3), round(wall[-1], 3)],
        "fast_ratio_median": round(statistics.median(ratios("fast", 0)), 3),
        "cpu_ratio_median": round(statistics.median(ratios("peer", 1)), 3),
    }


def main(argv: list[str] | None = None) -> int:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=64, help="of the larger case")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="16 MB, 2 runs")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args(argv)
    megabytes, runs = (16.0, 2) if args.quick else (args.megabytes, args.runs)
    folder = args.dir / f"bench-tokenise-{os.getpid()}"
    try:
        folder.mkdir(parents=True)
        base = corpus()
        tokenizer = args.tokenizer or folder / "tokenizer.json"
        if args.tokenizer is None:
            tokenizer.write_bytes(train_bpe(base, 16_384))
        sizes = {"small": megabytes / 4, "large": megabytes}
        cases = [Case(texts_of(s, base), tokenizer, folder / name) for name, s in sizes.items()]
        print(json.dumps(measure(cases, tokenizer, runs)), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
