"""Ranks of `trainer launch` that are told to stop, killed, and started again: how long it takes, and
what is left. ``python -m tests.trainer.launching.stop_and_kill`` prints one JSON object.

1. SIGTERM to rank 1 alone: all ranks save at one step and end.
2. SIGKILL of rank 1 of the continued run: all ranks end, the error names the rank and its log.
3. SIGKILL of rank 0 under ``--max-restarts 1``: the run goes on from its last checkpoint to its end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support import ROOT
from tests.trainer.launching.making import TRAINER, pairs, rank_process, start, wait_for, words

STEPS, EVERY, RANKS = 60, 10, 2
STOP_SECONDS, KILL_SECONDS = 60.0, 30.0


def lines(output: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl."""
    path = output / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def steps(output: Path) -> int:
    """The last step that was logged."""
    return max((line["step"] for line in lines(output) if "loss" in line), default=0)


class Run:
    """One run that is started several times."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "run"
        self.data = pairs(folder / "pairs")

    def start(self, *more: str) -> Any:
        """`trainer launch` with two ranks."""
        given = words(self.data, self.output, STEPS, f"checkpoint.every={EVERY}")
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [*TRAINER, "launch", *given, "--ranks", str(RANKS), *more]
        return start(command, cwd=ROOT, env=environ)

    def signalled(self, rank: int, number: int, after: int, *more: str) -> tuple[Any, float]:
        """Signal a rank once the run has made so many steps more; the launcher, and when."""
        begun = steps(self.output)
        launcher = self.start(*more)
        wait_for(lambda: steps(self.output) >= begun + after, 240, launcher)
        os.kill(rank_process(rank, str(self.output)), number)
        return launcher, time.monotonic()

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints."""
        folders = (self.output / "checkpoints").glob("step-*/manifest.json")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in folders)


def stop_one(run: Run) -> dict[str, Any]:
    """SIGTERM to rank 1."""
    launcher, at = run.signalled(1, signal.SIGTERM, 5)
    said = launcher.communicate(timeout=120)[0]
    seconds = time.monotonic() - at
    logs = [(run.output / "logs" / f"rank-{rank:04}.log").read_text() for rank in range(RANKS)]
    return {
        "exit_code": launcher.returncode,
        "seconds": round(seconds, 2),
        "same_step": run.checkpoints()[-1] == steps(run.output),
        "says_why": "stopped by SIGTERM, which one of the ranks received" in said,
        "tracebacks": sum("Traceback" in log for log in logs),
    }


def kill_one(run: Run) -> dict[str, Any]:
    """SIGKILL of rank 1."""
    launcher, at = run.signalled(1, signal.SIGKILL, 3)
    said = launcher.communicate(timeout=120)[0]
    seconds = time.monotonic() - at
    named = re.search(r"rank 1 was killed by SIGKILL .*its log is (\S+);", said)
    log = Path(named.group(1)) if named else None
    return {
        "exit_code": launcher.returncode,
        "seconds": round(seconds, 2),
        "names_rank_and_log": log is not None and log.name == "rank-0001.log" and log.exists(),
    }


def restart(run: Run) -> dict[str, Any]:
    """SIGKILL of rank 0, and the run to its end."""
    launcher, _ = run.signalled(0, signal.SIGKILL, EVERY + 2, "--max-restarts", "1")
    said = launcher.communicate(timeout=300)[0]
    begun = [line["step"] for line in lines(run.output) if line.get("event") == "continued"]
    return {
        "exit_code": launcher.returncode,
        "restarts": said.count("starting again"),
        "continued_from_a_checkpoint": begun[-1] > begun[-2] and begun[-1] % EVERY == 0,
        "finished_at": run.checkpoints()[-1],
    }


def main() -> int:
    """Do all three; exit code 1 if a limit is missed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        found = {"stop": stop_one(run), "kill": kill_one(run), "restart": restart(run)}
    faults = [
        what
        for what, fine in (
            ("SIGTERM of a rank", found["stop"]["exit_code"] == 143),
            ("seconds to stop", found["stop"]["seconds"] <= STOP_SECONDS),
            ("checkpoint at the last step", found["stop"]["same_step"]),
            ("message of the stop", found["stop"]["says_why"]),
            ("traceback in a log", not found["stop"]["tracebacks"]),
            ("SIGKILL of a rank", found["kill"]["exit_code"] == 7),
            ("seconds to end", found["kill"]["seconds"] <= KILL_SECONDS),
            ("rank and log", found["kill"]["names_rank_and_log"]),
            ("restart", found["restart"]["exit_code"] == 0 and found["restart"]["restarts"] == 1),
            ("continued", found["restart"]["continued_from_a_checkpoint"]),
            ("end", found["restart"]["finished_at"] == STEPS),
        )
        if not fine
    ]
    print(json.dumps({**found, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
