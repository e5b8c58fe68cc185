"""Slurm: the hosts of an allocation, one step for each, and the batch file that asks for them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.resources import files

from schemas.errors import UsageError

SRUN = (
    "srun --nodes=1 --ntasks=1 --nodelist={host} --kill-on-bad-exit=1 --cpu-bind=none --unbuffered"
)
"""Slurm as a remote shell: a step of one task on one host. The task may use all cores of the
allocation there; Slurm binds a task to one core otherwise."""


def in_allocation(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is inside a Slurm job."""
    return bool(environ.get("SLURM_JOB_ID") and environ.get("SLURM_JOB_NODELIST"))


def allocated_hosts(ranks: int | None, environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """{host: slots} of the allocation that this process is in.

    Slots: the GPUs of a host, else its tasks (``--ntasks-per-node``), else ``ranks`` over all hosts.
    Raises UsageError outside an allocation.
    """
    if not in_allocation(environ):
        raise UsageError(
            "--slurm: this is not inside a Slurm allocation (SLURM_JOB_ID is not set): submit with"
            " deploy/slurm/submit.sh, or start under salloc; --dry-run prints the batch file"
        )
    scontrol = shutil.which("scontrol", path=environ.get("PATH"))
    if scontrol is None:
        raise UsageError("--slurm: no `scontrol` on PATH: install Slurm's client (slurm-client)")
    names = environ["SLURM_JOB_NODELIST"]
    done = subprocess.run(
        [scontrol, "show", "hostnames", names], capture_output=True, text=True, check=False
    )
    hosts = done.stdout.split()
    if done.returncode or not hosts:
        raise UsageError(f"`scontrol show hostnames {names}` failed: {done.stderr.strip()[:200]}")
    gpus = environ.get("SLURM_GPUS_ON_NODE", "")
    tasks = re.match(r"\d+", environ.get("SLURM_NTASKS_PER_NODE", ""))
    if gpus.isdigit() and int(gpus):
        each = int(gpus)
    elif tasks and int(tasks[0]) > 1:
        each = int(tasks[0])
    else:
        each = -(-(ranks or len(hosts)) // len(hosts))
    return dict.fromkeys(hosts, each)


def batch_file(words: Sequence[str], hosts: int, command: str = "trainer") -> str:
    """The batch file that runs ``trainer launch WORDS`` on `hosts` hosts.

    It is ``sbatch.txt`` beside this module, which ``deploy/slurm/submit.sh`` submits with the words as
    its arguments, with the words written into it.
    """
    text = files("trainer.launching").joinpath("sbatch.txt").read_text(encoding="utf-8")
    first, rest = text.split("#SBATCH", 1)
    line = shlex.join([command, "launch", *words, "--slurm"])
    return f"{first}#SBATCH --nodes={hosts}\n#SBATCH{rest}".replace(
        'exec trainer launch "$@" --slurm', f"exec {line}"
    )
