"""A job on a real Slurm of two nodes: ``python -m tests.trainer.launching.slurm_job [clip|language]``.

Needs root, slurmctld, slurmd and munge. The job is submitted as a user would, by
``deploy/slurm/submit.sh``. One rank is killed by SIGKILL in mid-run; then the same command continues the
run to its end. Another run is killed so and restarted by ``--max-restarts``. The losses of both are
compared with those of a run that nothing disturbed. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support import ROOT
from tests.trainer.launching.killed_runs import KINDS, Kind, compared, last_step, uninterrupted
from tests.trainer.launching.making import rank_process
from tests.trainer.launching.slurm_cluster import ask, cluster
from tests.trainer.launching.two_hosts import fine

NODES = ("n1", "n2")


class Job:
    """A submitted job and its run directory."""

    def __init__(
        self, environ: dict[str, str], folder: Path, words: list[str], output: Path, *flags: str
    ) -> None:
        self.environ = {**environ, "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}"}
        self.output = output
        submit = (ROOT / "deploy/slurm/submit.sh", "--hosts", len(NODES), "--chdir", folder)
        command = [str(word) for word in (*submit, *flags, *words)]
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        self.number = done.stdout.split()[-1]
        self.log = folder / f"headrace-{self.number}.log"

    def kill_a_rank(self, after: int) -> None:
        """Kill rank 1 by SIGKILL once the run has made `after` steps."""
        deadline = time.monotonic() + 240
        while last_step(self.output) < after:
            if not self._queued() or time.monotonic() > deadline:
                raise RuntimeError(self.said() or "the job did not begin")
            time.sleep(0.05)
        os.kill(rank_process(1, str(self.output)), signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """Wait until the job is over; its exit code."""
        deadline = time.monotonic() + seconds
        while self._queued():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the job goes on after {seconds} s: {self.said()}")
            time.sleep(0.1)
        shown = ask(self.environ, "scontrol", "show", "job", self.number)
        return int(shown.partition("ExitCode=")[2].partition(":")[0])

    def said(self) -> str:
        """The end of the job's log."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""

    def processes(self) -> int:
        """How many processes of the job there are."""
        needle, found = f"SLURM_JOB_ID={self.number}".encode(), 0
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                found += needle in path.read_bytes().split(b"\0")
            except OSError:
                continue  # ended meanwhile
        return found

    def _queued(self) -> bool:
        return bool(ask(self.environ, "squeue", "-h", "-j", self.number))


def run(folder: Path, kind: Kind, *, to_the_end: bool = True) -> dict[str, Any]:
    """Kill a rank of a job; what was seen. ``to_the_end``: then submit it again, and kill a rank of
    another one, which is to be restarted."""
    data, output, other = kind.data(folder), folder / "run", folder / "restarted"
    whole = uninterrupted(kind, data, folder / "whole") if to_the_end else {}
    words = kind.settings(data, output)
    found: dict[str, Any] = {"hosts": len(NODES)}
    with cluster(folder) as environ:
        job = Job(environ, folder, words, output)
        job.kill_a_rank(kind.kill_after)
        killed = time.monotonic()
        code = job.wait(120)
        seconds = time.monotonic() - killed
        error = job.said().splitlines()[-1]
        found["killed"] = {
            "exit_code": code,
            "seconds": round(seconds, 2),
            "processes_left": job.processes(),
            "at_step": last_step(output),
            "error": error,
            "names_rank": "rank 1 on host n2 was killed by SIGKILL" in error,
            "names_log": str(output / "logs" / "rank-0001.log") in error,
        }
        found["logs"] = sorted(path.name for path in (output / "logs").iterdir())
        if to_the_end:
            job = Job(environ, folder, words, output)
            found["continued"] = {"exit_code": job.wait(240), **compared(output, whole)}
            words = kind.settings(data, other)
            job = Job(environ, folder, words, other, "--max-restarts", "1")
            job.kill_a_rank(kind.kill_after)
            found["restarted"] = {"exit_code": job.wait(240), **compared(other, whole)}
    return found


def main(name: str) -> int:
    with tempfile.TemporaryDirectory(prefix="slurm-job-") as folder:
        found = run(Path(folder), KINDS[name])
    print(json.dumps({"kind": name, **found}))
    return 0 if fine(found, KINDS[name]) else 1


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["language"])))
