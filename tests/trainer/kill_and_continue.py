"""Runs killed by SIGKILL in mid-epoch and continued with other numbers of ranks.

``python -m tests.trainer.kill_and_continue`` prints one JSON object: figures by ZeRO stage, and
``faults``, what was not as promised. Everything runs through `trainer launch`; ranks write down what
they take and hold (`tests/trainer/recording`), and that is compared with an uninterrupted run and
with the files of the checkpoints.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.storage import storage
from tests.support import ROOT
from tests.trainer.checkpoints.training import sha

RANKS = 2
BATCH, STEPS, EVERY, COMPARED = 16, 34, 4, 20
LOSS = WEIGHTS = 1e-5
RECORDING = ROOT / "tests" / "trainer" / "recording"
OPTIMIZERS = {
    "adamw": ["optimizer.name=adamw", "optimizer.lr=1e-3"],
    "sgd": ["optimizer.name=sgd", "optimizer.lr=0.01", "optimizer.momentum=0.9"],
}


@dataclass
class Life:
    """One start of a run: its directory and what its ranks wrote down."""

    output: Path
    record: Path
    process: subprocess.Popen[bytes]

    def last_step(self) -> int:
        """The last step that rank 0 has made, -1 before the first."""
        steps = [line["step"] for line in _lines(self.record / "0.jsonl") if "step" in line]
        return max(steps, default=-1)

    def wait(self) -> None:
        """Wait for the end. RuntimeError unless it ended well."""
        if self.process.wait(timeout=300):
            logs = "".join(p.read_text()[-1500:] for p in (self.output / "logs").glob("*"))
            end = (self.record / "stderr").read_text()[-1500:]
            raise RuntimeError(f"exit {self.process.returncode}: {end}\n{logs}")

    def kill(self, when: Callable[[Life], bool]) -> None:
        """Kill every process of the run by SIGKILL as soon as `when` holds."""
        deadline = time.monotonic() + 240
        while not when(self):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.wait()
                raise RuntimeError(f"{self.output} ended before it was killed")
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            for _ in range(1000):
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.poll()
                time.sleep(0.01)


class Runs:
    """Starts runs below a folder, on one dataset."""

    def __init__(self, folder: Path, dataset: Path) -> None:
        self.folder, self.dataset = folder, dataset
        self._numbers = itertools.count()

    def start(self, output: Path, zero: int, optimizer: str, ranks: int) -> Life:
        """Start, or continue, the run in `output`."""
        record = self.folder / f"record-{next(self._numbers)}"
        record.mkdir()
        words = [
            *("metaclip2-tiny", f"data.path={self.dataset}", f"output={output}", f"zero={zero}"),
            *("model.image=32", "model.context=12", "tokenizer.vocabulary=400", "loaders=1"),
            *(f"length.steps={STEPS}", f"batch.size={BATCH}"),
            *(f"checkpoint.every={EVERY}", "log_every=1", "schedule.warmup=5", "seed=3"),
            *("data.window=64", *OPTIMIZERS[optimizer]),
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", "launch", *words, "--ranks", str(ranks)],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")},
                "HEADRACE_TEST_RECORD": str(record),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": f"{RECORDING}{os.pathsep}{ROOT}",
            },
            stdout=subprocess.DEVNULL,
            stderr=(record / "stderr").open("wb"),
            start_new_session=True,
        )
        return Life(output, record, process)

    def whole(self, output: Path, zero: int, optimizer: str, ranks: int) -> Life:
        """A run to its end."""
        life = self.start(output, zero, optimizer, ranks)
        life.wait()
        return life

    def keep(self, output: Path) -> Path | None:
        """A copy of the checkpoint that the run would continue from; None if it has none."""
        latest = _checkpoint_of(output)
        if latest is None:
            return None
        return Path(shutil.copytree(latest, self.folder / f"kept-{next(self._numbers)}"))


def stage(runs: Runs, zero: int, faults: list[str]) -> dict[str, Any]:
    """Kill and continue at a ZeRO stage; figures."""
    found = {**adamw(runs, zero, faults), **_sgd(runs, zero, faults)}
    for ranks in (1, 4):
        for name, limit in ((f"loss_{ranks}_ranks", LOSS), (f"weights_{ranks}_ranks", WEIGHTS)):
            if not found[name] <= limit:
                faults.append(f"zero {zero}: {name} is off by {found[name]}")
    return found


def adamw(
    runs: Runs,
    zero: int,
    faults: list[str],
    kills: int = 3,
    continued: Sequence[int] = (1, RANKS, 4),
) -> dict[str, Any]:
    """Kill a run under AdamW, each time at another moment, then continue copies of it."""
    reference = runs.whole(runs.folder / f"whole-{zero}", zero, "adamw", RANKS)
    output = runs.folder / f"killed-{zero}"
    saving = output / "checkpoints" / f"step-{2 * EVERY:08}"
    moments: list[Callable[[Life], bool]] = [
        # Checkpoints are written while the run goes on, and committed some steps later.
        lambda life: life.last_step() >= EVERY + 1 and _checkpoint_of(output) is not None,
        lambda life: saving.exists(),  # in the save, or just after it
        lambda life: life.last_step() >= 3 * EVERY,
    ]
    lives, epochs, restores = [], [], 0
    for moment in moments[:kills]:
        before = runs.keep(output)
        restores += before is not None
        life = runs.start(output, zero, "adamw", RANKS)
        life.kill(moment)
        check_restore(life, before, RANKS, f"zero {zero}, killed again", faults)
        lives.append(life)
        epochs.append(round((life.last_step() + 1) * BATCH / _rows(runs.dataset), 3))
    figures: dict[str, Any] = {"kills": len(lives), "killed_at_epoch": epochs}
    last = _checkpoint_of(output)
    assert last is not None
    begun = int(last.name.removeprefix("step-"))
    for ranks in continued:
        on = runs.folder / f"killed-{zero}-{ranks}"
        shutil.copytree(output, on)
        kept = runs.keep(output)
        life = runs.whole(on, zero, "adamw", ranks)
        restores += 1
        what = f"zero {zero}, continued with {ranks} ranks"
        check_restore(life, kept, ranks, what, faults)
        check_order(reference, [*lives, life], what, faults)
        mine, other = _losses(on), _losses(reference.output)
        if ranks != RANKS:
            steps = range(begun + 1, begun + 1 + COMPARED)
            worst = max(abs(mine[s] - other[s]) / abs(other[s]) for s in steps)
            figures[f"loss_{ranks}_ranks"] = worst
            continue
        same = mine == other and _digest(on) == _digest(reference.output)
        figures["same_ranks_identical"] = same
        if not same:
            faults.append(f"{what}: not bit-identical to the uninterrupted run")
    return {**figures, "restores": restores, "samples": STEPS * BATCH}


def _sgd(runs: Runs, zero: int, faults: list[str]) -> dict[str, Any]:
    from trainer.engine.checkpoint import latest, read_weights

    reference = runs.whole(runs.folder / f"sgd-{zero}", zero, "sgd", RANKS)
    output = runs.folder / f"sgd-killed-{zero}"
    killed = runs.start(output, zero, "sgd", RANKS)
    killed.kill(lambda life: life.last_step() >= EVERY + 1)
    figures = {}
    for ranks in (1, 4):
        on = runs.folder / f"sgd-killed-{zero}-{ranks}"
        shutil.copytree(output, on)
        kept = runs.keep(output)
        life = runs.whole(on, zero, "sgd", ranks)
        what = f"zero {zero}, SGD continued with {ranks} ranks"
        check_restore(life, kept, ranks, what, faults)
        check_order(reference, [killed, life], what, faults)
        weights, expected = (
            read_weights(at, str(latest(at)))
            for at in (storage(place).at("checkpoints") for place in (on, reference.output))
        )
        off = {n: float((weights[n] - value).norm()) for n, value in expected.items()}
        for name in [name for name in off if name.endswith("k_proj.bias")]:
            # The softmax cancels it: its true gradient is 0, and it holds nothing but rounding.
            if off.pop(name) > 1e-6 or float(expected[name].norm()) > 1e-6:
                faults.append(f"{what}: {name} is not 0")
        figures[f"weights_{ranks}_ranks"] = max(
            o / float(expected[n].norm()) for n, o in off.items()
        )
    return figures


# -- checks -----------------------------------------------------------------------------------


def check_restore(life: Life, kept: Path | None, ranks: int, what: str, faults: list[str]) -> None:
    """What each rank held after the restore, and its first forward used, is what the files have."""
    if kept is None:
        return
    files = _stored(kept)
    step = json.loads((kept / "manifest.json").read_text())["facts"]["step"]
    for rank in range(ranks):
        lines = _lines(life.record / f"{rank}.jsonl")
        first = next((line["step"] for line in lines if "step" in line), None)
        restored = next((line for line in lines if "restored" in line), None)
        forward = next((line["forward"] for line in lines if "forward" in line), None)
        if restored is None or restored["restored"] != _name(kept):
            faults.append(f"{what}: rank {rank} did not restore {_name(kept)}")
            continue
        if restored["facts"]["step"] != step or restored["facts"]["position"] != step * BATCH:
            faults.append(f"{what}: rank {rank} is at {restored['facts']}")
        if first not in (None, step):
            faults.append(f"{what}: rank {rank} continued at step {first}, not {step}")
        if restored["steps"] not in ([], [step]):
            faults.append(
                f"{what}: rank {rank} has optimizer steps {restored['steps']}, not {step}"
            )
        for name, values in restored["tensors"].items():
            for kind, value in values.items():
                if value != files[kind][name]:
                    faults.append(f"{what}: {kind} of {name} is not that of the checkpoint")
            if forward is not None and forward.get(name) != files["forward"][name]:
                faults.append(f"{what}: the forward of rank {rank} uses another {name}")


def check_order(reference: Life, lives: Sequence[Life], what: str, faults: list[str]) -> None:
    """Every life's steps took the samples that the uninterrupted run took, and none is missing."""
    expected = _steps(reference)
    made: set[int] = set()
    for life in lives:
        for step, taken in _steps(life).items():
            made.add(step)
            if taken != expected.get(step):
                faults.append(f"{what}: step {step} took other samples")
    positions = [position for step in sorted(expected) for position in expected[step][0]]
    if positions != list(range(STEPS * BATCH)) or made != set(range(STEPS)):
        faults.append(f"{what}: samples are missing or repeated")


def _steps(life: Life) -> dict[int, tuple[list[int], list[str]]]:
    """{step: positions and hashes of its samples over all ranks, in their order}; whole steps."""
    ranks = sorted(life.record.glob("*.jsonl"), key=lambda path: int(path.stem))
    found: dict[int, tuple[list[int], list[str]]] = {}
    parts: dict[int, int] = {}
    for path in ranks:
        for line in _lines(path):
            if "step" in line:
                at = found.setdefault(line["step"], ([], []))
                at[0].extend(line["positions"])
                at[1].extend(line["samples"])
                parts[line["step"]] = parts.get(line["step"], 0) + 1
    return {step: at for step, at in found.items() if parts[step] == len(ranks)}


def _stored(kept: Path) -> dict[str, dict[str, str]]:
    """{kind: {parameter: SHA-256}} of a checkpoint's files, -0.0 as 0.0 but in what is forwarded."""
    from safetensors.torch import load_file

    found: dict[str, dict[str, str]] = {"forward": {}}
    for path in kept.glob("*.safetensors"):
        kind = path.name.split("-")[0]
        for name, value in load_file(path).items():
            found.setdefault(kind, {})[name] = sha(value + 0.0)
            if kind == "masters":
                found["forward"][name] = sha(value)
    return found


# -- files ------------------------------------------------------------------------------------


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that may be written just now."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def _losses(output: Path) -> dict[int, float]:
    """{step: loss}; the last line of a step counts."""
    lines = _lines(output / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def _checkpoint_of(output: Path) -> Path | None:
    from trainer.engine.checkpoint import latest

    name = latest(storage(output / "checkpoints"))
    return None if name is None else output / "checkpoints" / name


def _digest(output: Path) -> str:
    at = _checkpoint_of(output)
    assert at is not None
    return str(json.loads((at / "manifest.json").read_text())["digest"])


def _name(kept: Path) -> str:
    return f"step-{json.loads((kept / 'manifest.json').read_text())['facts']['step']:08}"


def _rows(dataset: Path) -> int:
    from schemas.dataset import open_dataset

    return len(open_dataset(dataset))


def main(stages: Sequence[int] = (1, 3)) -> int:
    """Run and print; exit code 1 if there are faults."""
    from tests.trainer.evaluation.runs import curated

    begun = time.monotonic()
    faults: list[str] = []
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), curated(Path(folder) / "curated", 150))
        out["rows"] = _rows(runs.dataset)
        for zero in stages:
            out[f"zero{zero}"] = stage(runs, zero, faults)
    out["seconds"] = round(time.monotonic() - begun)
    print(json.dumps({**out, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]] or (1, 3)))
