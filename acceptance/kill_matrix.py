"""A small run, killed at every storage operation, then run again: the same datasets each time.

    python -m acceptance.kill_matrix              all operations, local disk and S3; continues where
                                                  it stopped; writes acceptance/records/
    python -m acceptance.kill_matrix --slice 12   some of them, compared with the record

Each operation gets one way to die (before it, half done, after it), drawn from the seed. After the
second run every manifest digest must be that of an undisturbed run, `verify` must find nothing, and
`datasets` and polars must count the rows that the manifests state.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acceptance import records
from acceptance.runner import OUT, ROOT

NAME = "metaclip2-kill-matrix"
COMMAND = "python -m acceptance.kill_matrix"
SOURCES = (
    "schemas/*.py",
    "dataflows/engine/*.py",
    "dataflows/transforms/*.py",
    "dataflows/pipelines/metaclip2/*.py",
    "tests/faults/*.py",
    "acceptance/kill_matrix.py",
)
PLACES = ("local", "s3")
MODES = ("before", "torn", "after")
BUCKET = "matrix"
SETTINGS = (
    *("input=generated", "p=0.06", "buckets=2"),
    *("pool.records=120", "pool.unit=60", "pool.image_size=16"),
)


@dataclass(frozen=True)
class Case:
    """One kill."""

    place: str
    operation: int
    mode: str


@dataclass
class Bench:
    """Where runs happen: a warm process whose forked children do the work."""

    folder: Path

    def output(self, place: str, name: str) -> str:
        """Root of a run."""
        return f"s3://{BUCKET}/{name}" if place == "s3" else str(self.folder / name)

    def stage(self, place: str, name: str) -> None:
        """The run itself; SystemExit with its exit code."""
        from dataflows.cli import main

        metadata = self.folder / "metadata"
        words = [*SETTINGS, f"metadata={metadata}", f"output={self.output(place, name)}"]
        if code := main(["run", "metaclip2", *words]):
            raise SystemExit(code)

    def clear(self, place: str, name: str) -> None:
        """Remove a run."""
        if place == "local":
            shutil.rmtree(self.folder / name, ignore_errors=True)
            return
        import fsspec

        filesystem = fsspec.filesystem("s3")
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm(f"{BUCKET}/{name}", recursive=True)

    def digests(self, place: str, name: str) -> dict[str, str]:
        """{stage: manifest digest}, after checking rows, readers and checksums."""
        import datasets
        import polars

        from schemas.storage import storage
        from schemas.verify import verify

        datasets.disable_progress_bars()
        root = storage(self.output(place, name))
        heads = [key for key in root.list() if key.endswith("/manifest.json")]
        found = {}
        for key in heads:
            stage = root.at(key.removesuffix("/manifest.json"))
            manifest = json.loads(stage.read_bytes("manifest.json"))
            if faults := verify(stage):
                raise AssertionError(f"{stage}: {faults}")
            rows = manifest["totals"]["rows"]
            with tempfile.TemporaryDirectory() as copy:
                # What ordinary readers see is the listing of data/, whatever the manifest says.
                for number, shard in enumerate(stage.list("data")):
                    stage.fetch(shard, Path(copy) / f"{number:05d}.parquet")
                counted = {
                    "polars": polars.scan_parquet(f"{copy}/*.parquet")
                    .select(polars.len())
                    .collect()
                    .item(),
                    "datasets": datasets.load_dataset(
                        "parquet", data_dir=copy, split="train", cache_dir=f"{copy}/cache"
                    ).num_rows,
                }
            if set(counted.values()) != {rows}:
                raise AssertionError(f"{stage}: the manifest says {rows} rows, read {counted}")
            found[stage.name] = manifest["digest"]
        return found


def in_child(action: Callable[[], Any], log: Path) -> tuple[int, Any]:
    """(exit code, result) of `action` in a forked child whose output goes to a file."""
    from tests.faults import matrix

    result = log.with_suffix(".json")
    result.unlink(missing_ok=True)

    def work() -> None:
        with open(log, "a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        value = action()
        result.write_text(json.dumps(value), encoding="utf-8")

    code = matrix.in_child(work)
    return code, json.loads(result.read_text()) if code == 0 else None


@contextlib.contextmanager
def object_store() -> Iterator[None]:
    """moto's S3 server in a process of its own, named by the environment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def make_bucket() -> None:
    """Create the bucket (in a child: the client's threads do not survive a fork)."""
    import boto3

    boto3.client("s3").create_bucket(Bucket=BUCKET)


def undisturbed(bench: Bench, place: str, log: Path) -> tuple[dict[str, str], list[str]]:
    """(digests, operations) of a run that nothing disturbs."""
    from tests.faults import inject

    counter = bench.folder / f"operations-{place}"

    def work() -> dict[str, str]:
        with inject.installed(counter=counter):
            bench.stage(place, "whole")
        return bench.digests(place, "whole")

    code, digests = in_child(work, log)
    if code:
        raise SystemExit(f"the undisturbed run on {place} failed, see {log}")
    return digests, inject.operations(counter)


def strike(bench: Bench, case: Case, expected: dict[str, str], log: Path) -> str | None:
    """Kill, run again, compare; what went wrong, or None."""
    from tests.faults import inject

    log.unlink(missing_ok=True)
    in_child(lambda: bench.clear(case.place, "struck"), log)

    def killed() -> None:
        inject.install(case.operation, mode=case.mode)
        bench.stage(case.place, "struck")

    code, _ = in_child(killed, log)
    if code != inject.EXIT:
        return f"the kill did not strike: exit code {code}"
    code, _ = in_child(lambda: bench.stage(case.place, "struck"), log)
    if code:
        return f"the run after the kill failed with exit code {code}"
    code, digests = in_child(lambda: bench.digests(case.place, "struck"), log)
    if code:
        return "readers or verify disagree with the manifests"
    if digests != expected:
        return f"other digests: {sorted(k for k in expected if digests.get(k) != expected[k])}"
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "--slice", type=int, default=0, help="kills a place, compared to the record"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = os.environ["POLARS_MAX_THREADS"] = "1"
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"seed {args.seed}", flush=True)
    with object_store(), tempfile.TemporaryDirectory(prefix="headrace-matrix-") as folder:
        return _run(Bench(Path(folder)), args.slice, args.seed)


def _warm() -> None:
    """Import what every child needs, without starting a thread."""
    import apache_beam  # noqa: F401
    import datasets  # noqa: F401
    import numba  # noqa: F401
    import polars  # noqa: F401
    import s3fs  # noqa: F401

    import dataflows.engine.run
    import dataflows.transforms.sink  # noqa: F401


def _run(bench: Bench, slice_: int, seed: int) -> int:
    from tests.dataflows.conftest import write_metadata

    _warm()
    log = bench.folder / "log.txt"
    for action in (make_bucket, functools.partial(_metadata, write_metadata, bench.folder)):
        if in_child(action, log)[0]:
            raise SystemExit(log.read_text())
    whole = {place: undisturbed(bench, place, log) for place in PLACES}
    cases = {
        place: [
            Case(place, n, random.Random(f"{seed} {place} {n}").choice(MODES))
            for n in range(1, len(operations) + 1)
        ]
        for place, (_, operations) in whole.items()
    }
    expected = whole["local"][0]
    faults = [] if whole["s3"][0] == expected else ["local disk and S3 give different digests"]
    if slice_:
        draw = random.Random(seed + 1)
        cases = {place: draw.sample(all_, min(slice_, len(all_))) for place, all_ in cases.items()}
        record = records.load(NAME)
        if record.values["digests"] != expected:
            faults.append("the undisturbed run has other digests than the record")
    started = time.monotonic()
    done = _strike_all(bench, cases, whole, seed, resume=not slice_)
    faults += [f"{text}: {fault}" for text, (fault, _) in done.items() if fault]
    values: dict[str, Any] = {
        "operations": {place: len(operations) for place, (_, operations) in whole.items()},
        "kills": {place: len(chosen) for place, chosen in cases.items()},
        "modes": {m: sum(f'"{m}"' in text for text in done) for m in MODES},
        "same_digest": sum(fault is None for fault, _ in done.values()),
        "digests": expected,
    }
    values["kills_total"] = sum(values["kills"].values())
    if not slice_ and not faults:
        seconds = sum(s for _, s in done.values()) or time.monotonic() - started
        path = records.write(
            NAME, command=COMMAND, seeds=[seed], values=values, seconds=seconds, sources=SOURCES
        )
        print(f"written: {path.relative_to(ROOT)}")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(json.dumps(values | {"faults": len(faults)}))
    return 1 if faults else 0


def _metadata(write: Callable[..., Any], folder: Path) -> None:
    write(folder / "metadata", ("en", "sw"))


def _strike_all(
    bench: Bench,
    cases: dict[str, list[Case]],
    whole: dict[str, tuple[dict[str, str], list[str]]],
    seed: int,
    resume: bool,
) -> dict[str, tuple[str | None, float]]:
    """{case as JSON: (fault, seconds)}; with `resume`, what passed before is not repeated."""
    journal = OUT / f"{NAME}-{records.sources_digest(SOURCES)[:16]}-{seed}.jsonl"
    done: dict[str, tuple[str | None, float]] = {}
    if resume and journal.exists():
        rows = [json.loads(line) for line in journal.read_text().splitlines()]
        done = {row["case"]: (None, row["seconds"]) for row in rows if row["fault"] is None}
    total = sum(map(len, cases.values()))
    for place, chosen in cases.items():
        for case in chosen:
            text = json.dumps(asdict(case))
            if text in done:
                continue
            start = time.monotonic()
            log = OUT / "kill-matrix.log"
            fault = strike(bench, case, whole[place][0], log)
            seconds = round(time.monotonic() - start, 2)
            done[text] = (fault, seconds)
            if resume:
                with open(journal, "a", encoding="utf-8") as file:
                    row = {"case": text, "fault": fault, "seconds": seconds}
                    file.write(json.dumps(row) + "\n")
            if fault:
                shutil.copy(log, OUT / f"kill-matrix-{place}-{case.operation}-{case.mode}.log")
            operation = whole[place][1][case.operation - 1].split()[0]
            what = f"{place} {case.operation} {case.mode} {operation}"
            print(f"{len(done)}/{total} {what}: {fault or 'same digest'}", flush=True)
    return done


if __name__ == "__main__":
    sys.exit(main())
