"""Jobs of the pipeline benchmark: stages through the engine, the same work in a plain loop, memory.

As a program it runs one job in a process of its own, whose workers' memory the benchmark samples:
``python -m tests.benchmarks.pipeline_jobs STAGE RUN INPUT OUTPUT WORKERS BUCKETS``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.metaclip2.dedup import deduplicate
from curation.metaclip2.explode import explode
from curation.metaclip2.language import Identifier
from curation.metaclip2.match import match
from curation.pool.config import PoolConfig
from curation.pool.generate import generate
from dataflows.engine.run import RunSettings, run_graph
from dataflows.engine.runners import RunnerChoice
from dataflows.engine.stage import Graph, JobContext, Unit
from dataflows.pipelines.metaclip2.matches import automata_of
from dataflows.pipelines.metaclip2.recipe import Config, graph
from dataflows.transforms.reading import Ref
from dataflows.transforms.units import UnitStep
from schemas.commit import commit
from schemas.dataset import open_dataset
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.step import Outcome
from schemas.storage import storage
from schemas.table_schemas import MATCHES, POOL, RECORDS, SchemaSpec
from schemas.writer import Shard, ShardWriter

ROOT = Path(__file__).resolve().parents[2]
LARGEST_TEXT = 100_000
_CHUNK = 20_000


# -- inputs ------------------------------------------------------------------------------------


def _commit(place: Path, spec: SchemaSpec, shards: list[Shard], ids: int) -> None:
    rows = sum(shard.rows for shard in shards)
    ledger = Ledger()
    ledger.add(spec.unit, "created", "generated", rows, ids)
    ledger.add(spec.unit, "out", "", rows, ids)
    head = Manifest(schema={"name": spec.name, "version": spec.version}, counts=ledger.rows())
    commit(storage(place), head, shards)


def make_records(place: Path, rows: int, shards: int) -> None:
    """Commit records of the generated pool in equal shards (without pictures, as the demo's)."""
    done: list[Shard] = []
    ids = 0
    for part in range(shards):
        with ShardWriter(storage(place), RECORDS) as writer:
            for start in range(part * rows // shards, (part + 1) * rows // shards, _CHUNK):
                count = min(_CHUNK, (part + 1) * rows // shards - start)
                table = generate(0, start, count, PoolConfig(split="all"))
                ids += id_sum(table.column("image_id"))
                writer.write(table)
            done += writer.close()
    _commit(place, RECORDS, done, ids % 2**128)


def make_pool(place: Path, rows: int, shards: int) -> None:
    """Commit ``rows`` single texts of the generated pool in equal shards, sorted by image."""
    parts: list[pa.Table] = []
    while sum(part.num_rows for part in parts) < rows * 1.1:  # duplicates go
        start = len(parts) * _CHUNK
        records = generate(0, start, _CHUNK, PoolConfig(split="all"))
        parts.append(explode(records, 0, 0, start, max_text_bytes=LARGEST_TEXT).table)
    table = deduplicate(pa.concat_tables(parts)).table.slice(0, rows)
    done: list[Shard] = []
    for part in range(shards):
        with ShardWriter(storage(place), POOL) as writer:
            writer.write(table.slice(part * rows // shards, rows // shards))
            done += writer.close()
    _commit(place, POOL, done, sum(int(shard.id_sum or "0", 16) for shard in done) % 2**128)


def setup_run(place: Path) -> list[str]:
    """A finished small run of every stage with the builtin wordnets; returns its command."""
    words = ["input=generated", "metadata=builtin", "p=0.06", "pool.records=3000"]
    command = [
        *(sys.executable, "-m", "dataflows", "run", "metaclip2"),
        *(*words, f"output={place}"),
    ]
    run_quietly(command)
    return command


def run_quietly(command: list[str]) -> str:
    """The standard output of a command; RuntimeError with its last words if it fails."""
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


# -- the engine --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One stage of the recipe over committed inputs: ``run`` holds automata, ``source`` the rows.

    ``timed``: its units leave their times beside the output, for `pace`.
    """

    stage: str
    run: Path
    source: Path
    workers: int = 1
    buckets: int | None = None
    timed: bool = False

    def graph(self) -> Graph:
        """The recipe's own stage, alone."""
        config = Config(input="generated", output="unused", p=0.06, seed=0, buckets=self.buckets)
        stage = graph(config).stage(self.stage)
        if self.timed:
            stage = replace(stage, job=f"{__name__}:timed_{self.stage}")
        if self.stage == "pool":
            return Graph("metaclip2", (stage,), {"records": str(self.source)})
        inputs = {"pool": str(self.source), "automata": str(self.run / "automata")}
        return Graph("metaclip2", (stage,), inputs)

    def seconds(self, output: Path) -> tuple[float, float, str]:
        """(seconds, processor seconds of this process, digest) of plan, job and commit, anew."""
        shutil.rmtree(output, ignore_errors=True)
        os.sync()
        settings = RunSettings(str(output), RunnerChoice(workers=self.workers))
        with contextlib.redirect_stderr(io.StringIO()):
            start, busy = time.perf_counter(), time.process_time()
            done = run_graph(self.graph(), settings)
            spent = time.perf_counter() - start, time.process_time() - busy
        return *spent, done[self.stage].digest


@dataclass(frozen=True)
class _Timed:
    """A step that leaves behind in which process it began and ended each unit, in nanoseconds."""

    step: UnitStep
    folder: str

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        start = time.monotonic_ns()
        yield from self.step(unit)
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        span = json.dumps([os.getpid(), start, time.monotonic_ns()])
        Path(self.folder, f"{unit.name}.json").write_text(span, encoding="utf-8")


def timed_pool(context: JobContext, sink: Any) -> Any:
    """The recipe's job `pool`; its step also writes the times of its units beside the output."""
    from dataflows.pipelines.metaclip2.pool import pool

    return _timed(pool(context, sink), context)


def timed_matches(context: JobContext, sink: Any) -> Any:
    """The recipe's job `matches`, likewise."""
    from dataflows.pipelines.metaclip2.matches import matches

    return _timed(matches(context, sink), context)


def _timed(job: Any, context: JobContext) -> Any:
    job._step = _Timed(job._step, context.storage.url + ".spans")
    return job


@dataclass(frozen=True)
class Pace:
    """Mean seconds of a worker's unit once it is warm (its first unit is left out)."""

    step: float
    between: float
    """From the end of a unit to the start of the next: a shard is finished, or rows are encoded and sent;
    the next bundle comes."""

    @property
    def period(self) -> float:
        """From start to start."""
        return self.step + self.between


def pace(output: Path) -> Pace:
    """From the times that a timed job left beside its output."""
    workers: dict[int, list[tuple[int, int]]] = {}
    for file in output.glob("*.spans/*.json"):
        pid, start, end = json.loads(file.read_text(encoding="utf-8"))
        workers.setdefault(pid, []).append((start, end))
    pairs = [pair for units in workers.values() for pair in pairwise(sorted(units)[1:])]
    return Pace(
        float(np.mean([end - start for (start, end), _ in pairs])) / 1e9,
        float(np.mean([after[0] - before[1] for before, after in pairs])) / 1e9,
    )


# -- the plain loop ----------------------------------------------------------------------------


def plain_seconds(run: Path, source: Path, output: Path) -> tuple[float, float]:
    """(seconds, processor seconds) of the match stage's functions without engine and runner."""
    shutil.rmtree(output, ignore_errors=True)
    os.sync()
    start, busy = time.perf_counter(), time.process_time()
    automata = automata_of(Ref.of(open_dataset(run / "automata")))
    identifier = Identifier()
    with ShardWriter(storage(output), MATCHES) as writer:
        for table in open_dataset(source).tables():
            writer.write(match(table, automata, identifier).table)
        writer.close()
    return time.perf_counter() - start, time.process_time() - busy


# -- memory ------------------------------------------------------------------------------------


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    return children


def _peak(pid: int) -> int:
    """VmHWM of a process in bytes: the most memory that it ever had resident."""
    with contextlib.suppress(OSError):
        for line in Path("/proc", str(pid), "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class Memory(threading.Thread):
    """Samples the peak memory of a process and of every worker process below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.driver = 0
        self.workers: dict[int, int] = {}
        self._pid = pid
        self._stop_now = threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(0.1):
            self.driver = max(self.driver, _peak(self._pid))
            children = _children()
            todo = list(children.get(self._pid, ()))
            while todo:
                pid = todo.pop()
                todo += children.get(pid, ())
                with contextlib.suppress(OSError):
                    if b"python" in Path("/proc", str(pid), "cmdline").read_bytes()[:200]:
                        self.workers[pid] = max(self.workers.get(pid, 0), _peak(pid))

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


def peak_memory(job: Job, output: Path) -> dict[str, float]:
    """Peak memory in MiB of the largest worker and of the driver while a job runs elsewhere."""
    shutil.rmtree(output, ignore_errors=True)
    words = (job.stage, job.run, job.source, output, job.workers, job.buckets or 0)
    command = [sys.executable, "-m", __name__, *map(str, words)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        memory = Memory(process.pid)
        memory.start()
        errors = process.communicate()[1]
        memory.stop()
    if process.returncode:
        raise RuntimeError(f"{job.stage}: {errors.decode(errors='replace')[-2000:]}")
    workers = sorted(memory.workers.values(), reverse=True)[: job.workers]
    return {"worker": round(workers[0] / 2**20, 1), "driver": round(memory.driver / 2**20, 1)}


def rerun_seconds(command: list[str]) -> float:
    """Seconds of the command of a finished run, process start included."""
    start = time.perf_counter()
    run_quietly(command)
    return time.perf_counter() - start


def imports_beam(command: list[str]) -> bool:
    """Whether that command loads Beam, without which there is no job."""
    code = (
        "import sys; from dataflows.cli import main; assert main(sys.argv[1:]) == 0; "
        "print('apache_beam' in sys.modules)"
    )
    printed = run_quietly([sys.executable, "-c", code, *command[3:]])
    return printed.strip().endswith("True")


def spread(values: list[float]) -> Mapping[str, Any]:
    """Median and range, rounded."""
    return {
        "median": round(float(np.median(values)), 3),
        "range": [round(min(values), 3), round(max(values), 3)],
    }


if __name__ == "__main__":
    _stage, _run, _source, _output, _workers, _buckets = sys.argv[1:]
    # Under its importable name, so that worker processes find the job by it.
    from tests.benchmarks import pipeline_jobs

    pipeline_jobs.Job(
        _stage, Path(_run), Path(_source), int(_workers), int(_buckets) or None
    ).seconds(Path(_output))
