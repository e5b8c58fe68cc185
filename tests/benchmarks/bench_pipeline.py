"""The pipeline against the same functions in a plain loop; workers; memory; a finished run again.

overhead  marginal time T(2N) - T(N) of the demo's match stage through the engine (plan, job, sink,
          commit; generated pool, builtin wordnets) as a ratio to the same functions in a plain loop
          (read tables, match, write shards), and the fixed cost of a job. `processor` is the same
          ratio in processor time, which a busy machine disturbs less.
workers   two workers against one, before a shuffle: pace once warm. `match` keeps its rows. Those of
          `explode` (the pool's map side) go to the driver, a third process, so the seconds of a unit
          and those between two units (encoding, sending, the next bundle) are shown, with one worker
          and with two. Units are equal and several. `loops`: two plain loops at once against one, in
          processes of their own: what the machine itself gives, caches and memory shared.
memory    peak resident memory (VmHWM) of a worker process at N and at 8N rows, two workers. The
          driver's is beside it: the in-process runner holds a shuffle's data there, so it grows.
rerun     seconds of the command of a finished run.

Pools are generated. One JSON line for each case; median and range of alternating runs.
Run: ``python -m tests.benchmarks.bench_pipeline [--only overhead,workers] [--quick] [--json PATH]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks import pipeline_jobs as jobs
from tests.benchmarks.pipeline_jobs import Job, spread

UNITS = 4  # units of the smaller input: equal ones, so two workers have two each


@dataclass(frozen=True)
class Sizes:
    """Rows of each section's smaller input, and how often it is measured."""

    runs: int = 7
    match: int = 480_000  # seconds of work each: a busy moment of the machine weighs little
    workers: int = 800_000
    loops: int = 60_000
    explode: int = 1_000_000
    memory: int = 80_000


QUICK = Sizes(runs=1, match=8_000, workers=16_000, loops=4_000, explode=24_000, memory=4_000)
LOOP_RUNS = 3  # of the machine's own ratio, which is only shown


class Bench:
    """Inputs in a scratch folder, made when a section first asks for them."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self.run = folder / "run"
        self.command = jobs.setup_run(self.run)

    def pool(self, rows: int, shards: int) -> Path:
        """A pool of that many texts in equal shards."""
        return self._made(f"pool-{rows}-{shards}", jobs.make_pool, rows, shards)

    def records(self, rows: int, shards: int) -> Path:
        """That many records in equal shards."""
        return self._made(f"records-{rows}-{shards}", jobs.make_records, rows, shards)

    def _made(
        self, name: str, make: Callable[[Path, int, int], None], rows: int, shards: int
    ) -> Path:
        place = self.folder / name
        if not place.exists():
            make(place, rows, shards)
        return place

    def out(self) -> Path:
        """Where the next job writes."""
        return self.folder / "out"


def overhead(bench: Bench) -> Iterator[dict[str, Any]]:
    """Engine against plain loop, in turn, at N and 2N rows."""
    rows = bench.sizes.match
    pools = [bench.pool(rows, UNITS), bench.pool(2 * rows, 2 * UNITS)]
    wall: list[float] = []
    processor: list[float] = []
    fixed: list[float] = []
    rates: list[float] = []
    for number in range(bench.sizes.runs + 1):
        times: dict[str, list[tuple[float, float]]] = {"engine": [], "plain": []}
        for pool in pools:
            for name in ("engine", "plain") if number % 2 else ("plain", "engine"):
                if name == "engine":
                    spent = Job("matches", bench.run, pool).seconds(bench.out())[:2]
                else:
                    spent = jobs.plain_seconds(bench.run, pool, bench.out())
                times[name].append(spent)
        if number == 0:  # warms up
            continue
        engine, plain = ([b - a for a, b in zip(*times[n], strict=True)] for n in times)
        wall.append(engine[0] / plain[0])
        processor.append(engine[1] / plain[1])
        fixed.append(times["engine"][0][0] - engine[0])
        rates.append(rows / engine[0])
    yield {
        "case": "overhead",
        "rows": rows,
        "ratio": spread(wall),
        "processor": spread(processor),
        "fixed_seconds": spread(fixed),
        "texts_per_second": round(spread(rates)["median"]),
        "limit": 1.15,
    }


def workers(bench: Bench) -> Iterator[dict[str, Any]]:
    """Stages before a shuffle with one worker and with two."""
    yield _two_workers_match(bench)
    yield _two_workers_explode(bench)


def _two_workers_match(bench: Bench) -> dict[str, Any]:
    rows = bench.sizes.workers
    pool = bench.pool(rows, 2 * UNITS)
    line = _two_workers(bench, "match", rows, Job("matches", bench.run, pool, timed=True))
    loops = [
        _loops(bench, bench.pool(bench.sizes.loops, UNITS))
        for _ in range(min(LOOP_RUNS, bench.sizes.runs))
    ]
    return {**line, "loops": spread(loops), "cores": os.cpu_count()}


def _loops(bench: Bench, pool: Path) -> float:
    """Work of two plain loops at once over that of one, in a time: 2 on a machine without limits."""
    code = (
        "import sys; from pathlib import Path; from tests.benchmarks import pipeline_jobs as j;"
        "run, pool, out = map(Path, sys.argv[1:]); j.plain_seconds(run, pool, out);"
        "print('ready', flush=True); sys.stdin.readline();"
        "print(j.plain_seconds(run, pool, out)[0], flush=True)"
    )

    def start(name: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", code, bench.run, pool, bench.folder / name]
        return subprocess.Popen(
            list(map(str, words)),
            cwd=jobs.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def finish(processes: list[subprocess.Popen[str]]) -> float:
        for process in processes:
            assert process.stdin and process.stdout
            process.stdout.readline()
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        return max(float(process.communicate()[0]) for process in processes)

    alone = finish([start("loop-0")])
    both = finish([start("loop-0"), start("loop-1")])
    return 2 * alone / both


def _two_workers_explode(bench: Bench) -> dict[str, Any]:
    rows = bench.sizes.explode
    records = bench.records(rows, 2 * UNITS)
    return _two_workers(
        bench, "explode", rows, Job("pool", bench.run, records, buckets=UNITS, timed=True)
    )


def _two_workers(bench: Bench, name: str, rows: int, job: Job) -> dict[str, Any]:
    """Pace of a job with two workers over that with one, in turn."""
    paces: dict[int, list[jobs.Pace]] = {1: [], 2: []}
    digests: set[str] = set()
    for number in range(bench.sizes.runs):
        for count in (1, 2) if number % 2 else (2, 1):
            digests.add(replace(job, workers=count).seconds(bench.out())[2])
            paces[count].append(jobs.pace(bench.out()))
    if len(digests) > 1:
        raise RuntimeError(f"one worker and two made different datasets: {digests}")
    ratios = [2 * one.period / two.period for one, two in zip(paces[1], paces[2], strict=True)]
    medians = {
        f"{part}_seconds": [round(median(getattr(p, part) for p in paces[n]), 3) for n in (1, 2)]
        for part in ("step", "between")
    }
    case = f"workers_{name}"
    return {"case": case, "rows": rows, "ratio": spread(ratios), **medians, "limit": 1.8}


def memory(bench: Bench) -> Iterator[dict[str, Any]]:
    """Peak memory of workers at N and 8N rows.

    Shards of the match stage get more and longer. The pool's shards and buckets keep their size,
    as buckets do in the recipe from a million records on; there are more of them.
    """
    rows = bench.sizes.memory
    cases = {
        "match": (
            Job("matches", bench.run, bench.pool(rows, 2), 2),
            Job("matches", bench.run, bench.pool(8 * rows, 4), 2),
        ),
        "pool": (
            Job("pool", bench.run, bench.records(rows, 2), 2, buckets=2),
            Job("pool", bench.run, bench.records(8 * rows, 16), 2, buckets=16),
        ),
    }
    for name, (small, large) in cases.items():
        before, after = (jobs.peak_memory(job, bench.out()) for job in (small, large))
        yield {
            "case": f"memory_{name}",
            "rows": [rows, 8 * rows],
            "worker_mib": [before["worker"], after["worker"]],
            "driver_mib": [before["driver"], after["driver"]],
            "ratio": round(after["worker"] / before["worker"], 3),
            "limit": 1.15,
        }


def rerun(bench: Bench) -> Iterator[dict[str, Any]]:
    """The setup's command again: every stage is committed."""
    times = [jobs.rerun_seconds(bench.command) for _ in range(bench.sizes.runs)]
    yield {
        "case": "rerun",
        "seconds": spread(times),
        "beam_loaded": jobs.imports_beam(bench.command),
        "limit": 3.0,
    }


SECTIONS: dict[str, Callable[[Bench], Iterator[dict[str, Any]]]] = {
    "overhead": overhead,
    "workers": workers,
    "memory": memory,
    "rerun": rerun,
}


def main(argv: list[str] | None = None) -> int:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: checks the benchmark")
    parser.add_argument("--json", type=Path, help="also write all cases to this file")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args(argv)
    wanted = args.only.split(",")
    if unknown := [name for name in wanted if name not in SECTIONS]:
        parser.error(f"--only {unknown[0]}: known sections are {', '.join(SECTIONS)}")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(jobs.ROOT), os.environ.get("PYTHONPATH")])
    )
    folder = args.dir / f"bench-pipeline-{os.getpid()}"
    folder.mkdir(parents=True)
    start = time.perf_counter()
    load = [round(value, 2) for value in os.getloadavg()]
    rows: list[dict[str, Any]] = []
    try:
        bench = Bench(folder, QUICK if args.quick else Sizes())
        for name in wanted:
            for row in SECTIONS[name](bench):
                rows.append(row | {"quick": args.quick, "load_at_start": load})
                print(json.dumps(rows[-1]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        whole = {"seconds": round(time.perf_counter() - start, 1), "cases": rows}
        args.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
