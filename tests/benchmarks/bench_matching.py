"""The matching kernel against pyahocorasick, ahocorasick_rs and daachorse, on one pinned thread.

spaced, zh, ja, th   MB of raw UTF-8 text a second, from texts to entry ids, mode `official`, where all
          do the same; spacing included. `metaclip`: ratio to pyahocorasick in MetaCLIP's own loop.
          `best`: ratio to the best, in each run, of the libraries in their quickest way to sets of
          ids. Peers, which are slow, run over every n-th text (`sample_megabytes`), ours over all.
          Match sets must be equal: all peers on the sample, one on the whole text. `repaired_mb_s`:
          ours in the default mode, compared on some texts with pyahocorasick and a test of edges.
process   on the files of `spaced`: a cold process up to its first match with compiled code cached,
          also if no file of the package can be written (`cold_read_only`: writes below it are
          refused); opening the file; peak memory (VmHWM) of a process that matches the sample and
          of one that builds, each as a ratio to pyahocorasick used as MetaCLIP uses it.

Texts are real or drawn from lexica (`real_megabytes`). One JSON line for each case; median and range
of alternating runs. Needs the shared data and the `dev` extra.
Run: ``python -m tests.benchmarks.bench_matching [--only spaced,zh] [--quick] [--json PATH]``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from kernels.matching import Automaton, build
from tests.benchmarks import matching_corpus, matching_peers
from tests.benchmarks.matching_corpus import Corpus
from tests.support import ROOT, shared_folder


@dataclass(frozen=True)
class Sizes:
    """Entries, bytes of text (of each unspaced language a part), of the peers' sample, and runs."""

    runs: int = 7
    entries: int = 500_000
    spaced: int = 52_000_000
    unspaced: int = 18_000_000
    sample: int = 1_500_000


QUICK = Sizes(runs=2, entries=30_000, spaced=3_000_000, unspaced=1_500_000, sample=300_000)
LIMITS = {"spaced": (8, 2), "zh": (3, 1), "ja": (3, 1), "th": (3, 1)}


def spread(values: list[float]) -> dict[str, Any]:
    """Median and range, rounded."""
    low, high = round(min(values), 3), round(max(values), 3)
    return {"median": round(statistics.median(values), 3), "range": [low, high]}


def size(texts: list[str]) -> int:
    """Bytes of UTF-8."""
    return sum(len(text.encode()) for text in texts)


def seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds and result, without the garbage collector, which would slow the peers."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        result = action()
        return time.perf_counter() - start, result
    finally:
        gc.enable()


class Bench:
    """Corpora and automata in a scratch folder, made when a section first asks for them."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self.data = shared_folder("data", "HEADRACE_DATA")

    @cached_property
    def spaced(self) -> Corpus:
        """Entries and texts of spaced scripts."""
        return matching_corpus.spaced(self.data, self.sizes.entries, self.sizes.spaced)

    def automaton(self, corpus: Corpus, mode: Any) -> Path:
        """The automaton file of a corpus."""
        path = self.folder / f"{corpus.name}-{mode}"
        if not path.exists():
            build(corpus.entries, mode=mode, path=path)
        return path

    def sample(self, corpus: Corpus) -> list[str]:
        """Every n-th text, so that about `sample` bytes are left."""
        total = corpus.real_bytes + corpus.drawn_bytes
        return corpus.texts[:: max(1, total // self.sizes.sample)]


def same(what: str, texts: list[str], ours: list[set[int]], theirs: list[set[int]]) -> None:
    """Stop the benchmark at the first text whose sets differ."""
    for text, a, b in zip(texts, ours, theirs, strict=True):
        if a != b:
            raise RuntimeError(f"{what}: {sorted(a ^ b)} differ in {text!r}")


def sets(found: tuple[Any, Any]) -> list[set[int]]:
    """The kernel's answer as sets."""
    ids, ends = found[1].tolist(), found[0].tolist()
    return [set(ids[a:b]) for a, b in pairwise(ends)]


def matching(bench: Bench, name: str) -> Iterator[dict[str, Any]]:
    """One corpus: ours against all peers, in turn."""
    if name == "spaced":
        corpus = bench.spaced
    else:
        corpus = matching_corpus.unspaced(
            name, bench.data, bench.sizes.entries, bench.sizes.unspaced
        )
    total = corpus.real_bytes + corpus.drawn_bytes
    texts, sample = pa.array(corpus.texts), bench.sample(corpus)
    taken = size(sample)
    ours = Automaton.open(bench.automaton(corpus, "official"))
    default = Automaton.open(bench.automaton(corpus, "repaired"))
    expected = sets(ours.match(pa.array(sample)))  # warms up, as the peers are below
    few = sample[:: max(1, taken // 200_000)]
    edges = matching_peers.repaired(corpus.entries)
    same("repaired", few, sets(default.match(pa.array(few))), edges(few))
    del edges
    metaclip = matching_peers.metaclip(corpus.entries)
    same("as MetaCLIP", sample, expected, metaclip.match(sample))
    quickest: dict[str, tuple[float, matching_peers.Peer]] = {}
    for peer in matching_peers.candidates(corpus.entries):
        spent, got = seconds(lambda peer=peer: peer.match(sample))  # type: ignore[misc]
        same(f"{peer.library}, {peer.way}", sample, expected, got)
        if peer.library not in quickest or spent < quickest[peer.library][0]:
            quickest[peer.library] = (spent, peer)
    peers = [metaclip, *(peer for _, peer in quickest.values())]
    best = min(quickest.values(), key=lambda row: row[0])[1]
    same("whole text", corpus.texts, sets(ours.match(texts)), best.match(corpus.texts))
    actions: dict[str, tuple[int, Callable[[], Any]]] = {
        "ours": (total, lambda: ours.match(texts)),
        "repaired": (total, lambda: default.match(texts)),
    }
    for peer in peers:
        actions[f"{peer.library}, {peer.way}"] = (
            taken,
            lambda peer=peer: peer.match(sample),  # type: ignore[misc]
        )
    rates: dict[str, list[float]] = {key: [] for key in actions}
    for number in range(bench.sizes.runs):
        for key in list(actions)[:: -1 if number % 2 else 1]:
            amount, action = actions[key]
            rates[key].append(amount / seconds(action)[0] / 1e6)
    plain = rates[f"{metaclip.library}, {metaclip.way}"]
    quick = [f"{peer.library}, {peer.way}" for peer in peers[1:]]
    tops = [max(rates[key][run] for key in quick) for run in range(bench.sizes.runs)]
    yield {
        "case": name,
        "entries": len(corpus.entries),
        "megabytes": round(total / 1e6, 1),
        "real_megabytes": round(corpus.real_bytes / 1e6, 1),
        "sample_megabytes": round(taken / 1e6, 2),
        "matches_per_text": round(sum(map(len, expected)) / len(sample), 2),
        "same_sets": True,
        "metaclip": spread([a / b for a, b in zip(rates["ours"], plain, strict=True)]),
        "best": spread([a / b for a, b in zip(rates["ours"], tops, strict=True)]),
        "repaired": spread([a / b for a, b in zip(rates["repaired"], plain, strict=True)]),
        "mb_s": {key: spread(values) for key, values in rates.items()},
        "limits": LIMITS[name],
    }


READ_ONLY = """
import os, sys
root = sys.argv[2]
def refuse(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].startswith(root):
        if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", args[0])
    elif event in ("os.mkdir", "os.rename", "os.remove") and str(args[0]).startswith(root):
        raise OSError(30, "Read-only file system", args[0])
if root:
    sys.addaudithook(refuse)
"""
FIRST_MATCH = """
import pyarrow as pa
from kernels.matching import Automaton
offsets, ids = Automaton.open(sys.argv[1]).match(pa.array(["a hot dog in new york"]))
assert len(ids)
"""
PEAKS = {
    "match ours": """
import json, sys, pyarrow as pa
from kernels.matching import Automaton
automaton = Automaton.open(sys.argv[1])
offsets, ids = automaton.match(pa.array(json.load(open(sys.argv[2]))))
""",
    "match peer": """
import json, pickle, sys, ahocorasick
with open(sys.argv[1], "rb") as file:
    automaton = pickle.load(file)
found = []
for text in json.load(open(sys.argv[2])):
    found.append(list({i for _, (i, _) in automaton.iter(text)}))
""",
    "build ours": """
import json, sys
from kernels.matching import build
build(json.load(open(sys.argv[2])), mode="official", path=sys.argv[1] + ".again")
""",
    "build peer": """
import json, sys, ahocorasick
automaton = ahocorasick.Automaton()
for i, key in enumerate(json.load(open(sys.argv[2]))):
    automaton.add_word(key, (i, key))
automaton.make_automaton()
""",
}
SHOW_PEAK = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def child(code: str, *words: Path | str, **variables: str) -> str:
    """What a fresh Python prints; it is pinned as this process is."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def process(bench: Bench) -> Iterator[dict[str, Any]]:
    """Start-up and memory, on the file of the spaced corpus."""
    path = bench.automaton(bench.spaced, "official")
    times: dict[str, list[float]] = {"cold": [], "cold_read_only": [], "open": []}
    for number in range(bench.sizes.runs + 1):
        cache = bench.folder / f"cache-{number}"
        for name, root in (("cold", ""), ("cold_read_only", str(ROOT / "kernels"))):
            spent, _ = seconds(
                lambda root=root, cache=cache: child(  # type: ignore[misc]
                    READ_ONLY + FIRST_MATCH, path, root, XDG_CACHE_HOME=str(cache)
                )
            )
            times[name].append(spent)
        times["open"].append(seconds(lambda: Automaton.open(path))[0])
    megabytes = round(path.stat().st_size / 1e6, 1)
    for name, limit in (("cold", 3.0), ("cold_read_only", 3.0), ("open", 0.1)):
        values = spread(times[name][1:])  # the first fills the page cache
        yield {"case": name, "seconds": values, "file_megabytes": megabytes, "limit": limit}
    yield memory(bench, path)


def memory(bench: Bench, path: Path) -> dict[str, Any]:
    """Peak memory of processes that match and that build."""
    entries, sample = bench.spaced.entries, bench.sample(bench.spaced)
    pickled = bench.folder / "peer.pickle"
    pickled.write_bytes(pickle.dumps(matching_peers.as_metaclip(entries)))
    inputs = {
        "match ours": (path, sample),
        "match peer": (pickled, [matching_peers.space_text(text) for text in sample]),
        "build ours": (path, entries),
        "build peer": (pickled, [matching_peers.space_entry(entry) for entry in entries]),
    }
    peaks = {}
    for name, (file, values) in inputs.items():
        given = bench.folder / "given.json"
        given.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        peaks[name] = int(child(PEAKS[name] + SHOW_PEAK, file, given)) / 1024
    return {
        "case": "memory",
        "peak_mib": {name: round(value) for name, value in peaks.items()},
        "match_ratio": round(peaks["match ours"] / peaks["match peer"], 3),
        "build_ratio": round(peaks["build ours"] / peaks["build peer"], 3),
        "limit": 1.0,
    }


SECTIONS = (*LIMITS, "process")


def main(argv: list[str] | None = None) -> int:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas")
    parser.add_argument("--quick", action="store_true", help="small sizes: checks the benchmark")
    parser.add_argument("--json", type=Path, help="also write all cases to this file")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args(argv)
    wanted = args.only.split(",")
    if unknown := [name for name in wanted if name not in SECTIONS]:
        parser.error(f"--only {unknown[0]}: known sections are {', '.join(SECTIONS)}")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    folder = args.dir / f"bench-matching-{os.getpid()}"
    folder.mkdir(parents=True)
    start = time.perf_counter()
    told = {"quick": args.quick, "load_at_start": [round(value, 2) for value in os.getloadavg()]}
    rows: list[dict[str, Any]] = []
    try:
        bench = Bench(folder, QUICK if args.quick else Sizes())
        for name in wanted:
            for row in process(bench) if name == "process" else matching(bench, name):
                rows.append(row | told)
                print(json.dumps(rows[-1]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        whole = {"seconds": round(time.perf_counter() - start, 1), "cases": rows}
        args.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
