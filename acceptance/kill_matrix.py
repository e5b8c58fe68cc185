"""A small run, killed at every storage operation, then run again: the same datasets each time.

    python -m acceptance.kill_matrix              all operations, local disk and S3; continues where
                                                  it stopped; writes acceptance/records/
    python -m acceptance.kill_matrix --slice 12   some of them, compared with the record

Each operation gets one way to die (before it, half done, after it), drawn from the seed. The second
run goes on to the end of the struck stage, every twentieth time to the end of all stages; every other
time its bundles are doubled, disordered, and come once more after the commit. Then the manifest
digests must be those of an undisturbed run, `verify` must find nothing, and `datasets` and polars
must count the rows that the manifests state.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from acceptance.kill_bench import PLACES, Bench, in_child, prepare, warm
from acceptance.records import FOLDER
from acceptance.runner import OUT, ROOT
from schemas import records
from schemas.storage import storage
from tests.schemas.servers import BUCKET, moto, variables

NAME = "metaclip2-kill-matrix"
COMMAND = "python -m acceptance.kill_matrix"
SOURCES = (
    # What the killed runs execute; replay, cards and the texts of reasons are not among it.
    *(f"schemas/{name}*.py" for name in ("commit", "dataset", "id", "ledger", "manifest")),
    *(f"schemas/{name}*.py" for name in ("row_sizes", "schema", "shard", "step", "storage")),
    *(f"schemas/{name}*.py" for name in ("table_schemas", "verify", "writer")),
    "dataflows/engine/[!r]*.py",
    "dataflows/engine/run*.py",
    "dataflows/transforms/*.py",
    "dataflows/pipelines/metaclip2/[!r]*.py",
    "dataflows/pipelines/metaclip2/recipe.py",
    "tests/faults/inject.py",
    "tests/faults/duplicates.py",
    "acceptance/kill_*.py",
)
MODES = ("before", "torn", "after")
LANES = 2
TO_THE_END = 20


@dataclass(frozen=True)
class Case:
    """One kill: at which operation of which stage (1 the first), and how."""

    place: str
    stage: int
    operation: int
    mode: str


@dataclass
class Whole:
    """The undisturbed run on one place."""

    digests: dict[str, str]
    stages: list[list[str]]  # names of the datasets that each stage commits
    operations: list[list[str]]  # operations of each stage


def undisturbed(bench: Bench, log: Path) -> Whole:
    """Run stage by stage, keeping a copy of the state before each."""
    from tests.faults import inject

    whole = Whole({}, [], [])
    total = len(bench.graph("whole").stages)
    for stage in range(1, total + 1):
        counter = bench.folder / f"operations-{stage}"

        def work(stage: int = stage, counter: Path = counter) -> dict[str, str]:
            bench.copy("whole", f"before-{stage}")
            with inject.installed(counter=counter):
                bench.run("whole", stage)
            return bench.digests("whole", stage, stage)

        code, digests = in_child(work, log)
        if code:
            raise SystemExit(f"the undisturbed run failed:\n{log.read_text(encoding='utf-8')}")
        whole.digests |= digests
        whole.stages.append(sorted(digests))
        whole.operations.append(inject.operations(counter))
    return whole


def strike(bench: Bench, case: Case, whole: Whole, position: int, log: Path) -> str | None:
    """Kill, run again, compare; what went wrong, or None."""
    from tests.faults import duplicates, inject

    log.unlink(missing_ok=True)
    run = f"struck-{os.getpid()}"
    last = case.stage if position % TO_THE_END else len(whole.stages)

    def killed() -> None:
        bench.copy(f"before-{case.stage}", run)
        inject.install(case.operation, mode=case.mode)
        bench.run(run, case.stage)

    def again() -> dict[str, str]:
        if position % 2:
            duplicates.install(seed=position)
        bench.run(run, last)
        if position % 2:
            duplicates.late()
        return bench.digests(run, case.stage, last)

    code, _ = in_child(killed, log)
    if code != inject.EXIT:
        return f"the kill did not strike: exit code {code}"
    code, digests = in_child(again, log)
    if code:
        return f"the run after the kill, or reading what it left, failed with exit code {code}"
    names = [name for stage in whole.stages[case.stage - 1 : last] for name in stage]
    expected = {name: whole.digests[name] for name in names}
    return None if digests == expected else f"digests {digests} instead of {expected}"


def cases_of(place: str, whole: Whole, seed: int) -> list[Case]:
    """Every operation of every stage, each with a way to die."""
    return [
        Case(place, stage, n, random.Random(f"{seed} {place} {stage} {n}").choice(MODES))
        for stage, operations in enumerate(whole.operations, 1)
        for n in range(1, len(operations) + 1)
    ]


def lane(
    bench: Bench, cases: list[tuple[int, Case]], whole: Whole, journal: Path, number: int
) -> None:
    """Strike every LANES-th case and note each in the journal."""
    log = bench.folder / f"lane-{number}.txt"
    for position, case in cases[number::LANES]:
        start = time.monotonic()
        fault = strike(bench, case, whole, position, log)
        seconds = round(time.monotonic() - start, 2)
        row = {"case": asdict(case), "fault": fault, "seconds": seconds}
        row["doubled"] = position % 2
        with open(journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        operation = whole.operations[case.stage - 1][case.operation - 1].split()[0]
        what = f"{case.place} {whole.stages[case.stage - 1][0]} {case.operation} {operation}"
        print(f"{what} {case.mode}: {fault or 'same digest'} ({seconds} s)", flush=True)
        if fault:
            name = f"kill-{case.place}-{case.stage}-{case.operation}-{case.mode}.txt"
            shutil.copy(log, OUT / name)


def strike_all(
    bench: Bench, cases: list[Case], whole: Whole, journal: Path
) -> list[dict[str, Any]]:
    """Rows of the journal for `cases`; those that passed before are not repeated."""
    wanted = {json.dumps(asdict(case)) for case in cases}

    def rows() -> list[dict[str, Any]]:
        lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
        latest = {json.dumps(row["case"]): row for row in map(json.loads, lines)}
        return [row for key, row in latest.items() if key in wanted]

    done = {json.dumps(row["case"]) for row in rows() if row["fault"] is None}
    numbered = [(n // LANES, case) for n, case in enumerate(cases)]
    todo = [pair for pair in numbered if json.dumps(asdict(pair[1])) not in done]
    lanes = []
    for number in range(LANES):
        if (pid := os.fork()) == 0:
            try:
                lane(bench, todo, whole, journal, number)
            except BaseException as error:
                print(f"lane {number}: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        lanes.append(pid)
    if any(os.waitpid(pid, 0)[1] for pid in lanes):
        raise SystemExit("a lane of the matrix ended early; the same command continues")
    return rows()


def place_rows(
    place: str, folder: Path, seed: int, slice_: int
) -> tuple[Whole, list[dict[str, Any]]]:
    """All of one place, or `slice_` kills of it."""
    bench = Bench(folder, place)
    log = folder / "log.txt"
    # Scratch of its own, made before anything is counted: what other killed processes left would be
    # cleaned by ours, and the folder be made by the first run only.
    scratch = folder / "scratch"
    scratch.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    storage(f"s3://{BUCKET}/scratch").scratch()
    if in_child(partial(prepare, bench), log)[0]:
        raise SystemExit(log.read_text(encoding="utf-8"))
    whole = undisturbed(bench, log)
    cases = cases_of(place, whole, seed)
    journal = OUT / f"{NAME}-{records.sources_digest(SOURCES, ROOT)[:16]}-{seed}.jsonl"
    if slice_:
        cases = random.Random(f"{seed} {place}").sample(cases, min(slice_, len(cases)))
        journal = folder / "journal.jsonl"
    print(f"{place}: {sum(map(len, whole.operations))} operations, {len(cases)} kills", flush=True)
    return whole, strike_all(bench, cases, whole, journal)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slice", type=int, default=0, help="kills a place, against the record")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = os.environ["POLARS_MAX_THREADS"] = "1"
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"seed {args.seed}", flush=True)
    wholes: dict[str, Whole] = {}
    rows: list[dict[str, Any]] = []
    outside = tempfile.gettempdir()
    with moto() as endpoint, variables(endpoint):
        warm()
        for place in PLACES:
            with tempfile.TemporaryDirectory(prefix="headrace-matrix-", dir=outside) as folder:
                wholes[place], found = place_rows(place, Path(folder), args.seed, args.slice)
                rows += found
            os.environ["TMPDIR"] = tempfile.tempdir = outside
    return conclude(wholes, rows, args.seed, bool(args.slice))


def conclude(wholes: dict[str, Whole], rows: list[dict[str, Any]], seed: int, part: bool) -> int:
    """Print the values, write the record of a whole matrix; the exit code."""
    digests = wholes["local"].digests
    faults = [f"{row['case']}: {row['fault']}" for row in rows if row["fault"]]
    if wholes["s3"].digests != digests:
        faults.append("local disk and S3 give different digests")
    if part and records.load(FOLDER, NAME).values["digests"] != digests:
        faults.append("the undisturbed run has other digests than the record")
    places = [row["case"]["place"] for row in rows]
    modes = [row["case"]["mode"] for row in rows]
    doubled = sum(row["doubled"] for row in rows)
    values = {
        "operations": {place: sum(map(len, w.operations)) for place, w in wholes.items()},
        "kills": {place: places.count(place) for place in PLACES},
        "kills_total": len(rows),
        "modes": {mode: modes.count(mode) for mode in MODES},
        "with_doubled_and_late_bundles": doubled,
        "same_digest": len(rows) - len([row for row in rows if row["fault"]]),
        "digests": digests,
    }
    if not part and not faults:
        path = records.write(
            FOLDER,
            NAME,
            command=COMMAND,
            seeds=[seed],
            values=values,
            seconds=sum(row["seconds"] for row in rows) / LANES,
            sources=SOURCES,
            root=ROOT,
        )
        print(f"written: {path.relative_to(ROOT)}")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(json.dumps(values | {"faults": len(faults)}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
