"""A Slurm cluster of two nodes on this machine: its own munged, slurmctld and two slurmd, as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support import give_up, require

PROGRAMS = (
    "slurmctld",
    "slurmd",
    "munged",
    "sbatch",
    "scontrol",
    "squeue",
    "scancel",
    "sinfo",
    "srun",
)

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs={cores} State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def _path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which `sbatch` and its like speak to the cluster."""
    require("slurm")
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if missing:
        give_up("slurm", f"{', '.join(missing)} not installed (Debian: slurmctld, slurmd, munge)")
    if os.geteuid():
        give_up("slurm", "a cluster of one machine is started by root")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    cores = len(os.sched_getaffinity(0))
    host = socket.gethostname().partition(".")[0]
    text = CONF.format(
        host=host, folder=folder, cores=cores, port=ports[0], first=ports[1], second=ports[2]
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    environ = {**os.environ, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        log = open(folder / f"{command[0]}.log", "ab")  # noqa: SIM115
        started.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
        log.close()

    try:
        start(
            *("munged", "--foreground", "--force", f"--socket={folder}/munge.socket"),
            *(f"--key-file={folder}/munge.key", f"--pid-file={folder}/munged.pid"),
            *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
        )
        _until(lambda: (folder / "munge.socket").exists(), folder)
        start("slurmctld", "-D", "-c")
        for node in ("n1", "n2"):
            start("slurmd", "-D", "-N", node)
        _until(lambda: ask(environ, "sinfo", "-h", "-o", "%D %t") == "2 idle", folder)
        yield environ
    finally:
        ask(environ, "scancel", "--user=root")
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def ask(environ: dict[str, str], *command: str) -> str:
    """What a command of Slurm prints."""
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _until(condition: object, folder: Path, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        if time.monotonic() > until:
            logs = [p.read_text(errors="replace")[-800:] for p in folder.glob("*.log")]
            give_up("slurm", f"the cluster did not come up: {logs}")
        time.sleep(0.2)
