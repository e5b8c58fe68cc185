"""A run on two hosts made as network namespaces.

    python -m tests.trainer.launching.two_hosts [clip|language]

Needs root and iproute2. The hosts share the file system and nothing else: each has its own
interfaces, joined by a veth pair, and the launcher, which is in neither, starts agents there with
``ip netns exec`` from a hostfile. One rank is killed by SIGKILL in mid-run; then the same command
continues the run to its end. Another run is killed so and restarted by ``--max-restarts``. The losses
of both are compared with those of a run that nothing disturbed. Prints one JSON object; namespaces
and processes are always removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.trainer.launching.killed_runs import KINDS, Kind, compared, last_step, uninterrupted
from tests.trainer.launching.making import TRAINER, start, wait_for

SUBNET = "10.213.87"


def ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def processes(host: str) -> dict[int, str]:
    """{process id: its command line} of a namespace."""
    found = {}
    for pid in ip("netns", "pids", host, check=False).split():
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if text:
                found[int(pid)] = text
    return found


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces that reach each other; with all of their processes gone afterwards."""
    hosts = tuple(f"hr{os.getpid()}{letter}" for letter in "ab")
    try:
        for host in hosts:
            ip("netns", "add", host)
        ip(
            *("link", "add", "hr0", "netns", hosts[0], "type", "veth"),
            *("peer", "name", "hr0", "netns", hosts[1]),
        )
        for number, host in enumerate(hosts, 1):
            ip("-n", host, "address", "add", f"{SUBNET}.{number}/24", "dev", "hr0")
            for interface in ("lo", "hr0"):
                ip("-n", host, "link", "set", interface, "up")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            for pid in processes(host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ip("netns", "delete", host, check=False)


def run(folder: Path, kind: Kind, *, to_the_end: bool = True) -> dict[str, Any]:
    """Kill a rank in mid-run; what was seen. ``to_the_end``: then continue it by the same command, and
    kill a rank of another run, which its launcher is to restart."""
    data, output = kind.data(folder), folder / "run"
    whole = uninterrupted(kind, data, folder / "whole") if to_the_end else {}
    with two_hosts() as hosts:
        found = {"hosts": len(hosts), **_killed(folder, kind, data, output, hosts)}
        found["logs"] = sorted(path.name for path in (output / "logs").iterdir())
        if to_the_end:
            command = _command(folder, kind, data, output)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found["continued"] = {
                "exit_code": done.returncode,
                **compared(output, whole),
                "said": done.stderr[-1500:] if done.returncode else "",
            }
            found["restarted"] = _restarted(folder, kind, data, whole, hosts[1])
    return found


def _command(folder: Path, kind: Kind, data: Path, output: Path) -> list[str]:
    where = ("--hostfile", str(folder / "hosts"), "--rsh", "ip netns exec")
    return [*TRAINER, "launch", *kind.settings(data, output), *where]


def _victim(host: str) -> int:
    (pid,) = [pid for pid, text in processes(host).items() if "launching.rank" in text]
    return pid


def _killed(
    folder: Path, kind: Kind, data: Path, output: Path, hosts: tuple[str, str]
) -> dict[str, Any]:
    """Kill the second rank and wait for the end of all."""
    (folder / "hosts").write_text("".join(f"{host} slots=1\n" for host in hosts))
    launcher = start(_command(folder, kind, data, output))
    wait_for(lambda: last_step(output) >= kind.kill_after, 240, launcher)
    environments = [_environment(pid) for h in hosts for pid in processes(h)]
    ranks = [e for e in environments if "RANK" in e]
    killed = time.monotonic()
    os.kill(_victim(hosts[1]), signal.SIGKILL)
    said, _ = launcher.communicate(timeout=120)
    seconds = time.monotonic() - killed
    error = next((x for x in said.splitlines() if x.startswith("trainer: error")), "")
    return {
        "ranks": len(ranks),
        "master": sorted({e["MASTER_ADDR"] for e in ranks}),
        "interface": sorted({e["GLOO_SOCKET_IFNAME"] for e in ranks}),
        "killed": {
            "exit_code": launcher.returncode,
            "seconds": round(seconds, 2),
            "processes_left": sum(len(processes(host)) for host in hosts),
            "at_step": last_step(output),
            "error": error,
            "names_rank": "rank 1" in error and "SIGKILL" in error and hosts[1] in error,
            "names_log": str(output / "logs" / "rank-0001.log") in error,
        },
    }


def _restarted(
    folder: Path, kind: Kind, data: Path, whole: dict[int, float], host: str
) -> dict[str, Any]:
    """Kill a rank of a run that may be started again once, by ``--max-restarts``."""
    output = folder / "restarted"
    launcher = start([*_command(folder, kind, data, output), "--max-restarts", "1"])
    wait_for(lambda: last_step(output) >= kind.kill_after, 240, launcher)
    os.kill(_victim(host), signal.SIGKILL)
    said, _ = launcher.communicate(timeout=240)
    return {
        "exit_code": launcher.returncode,
        **compared(output, whole),
        "said": said[-1500:] if launcher.returncode else "",
    }


def _environment(pid: int) -> dict[str, str]:
    with contextlib.suppress(OSError):
        pairs_ = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(pair.split("=", 1) for pair in pairs_ if "=" in pair)
    return {}


def fine(found: dict[str, Any], kind: Kind) -> bool:
    """Whether all was as promised."""
    killed = found["killed"]
    ended = (
        killed["exit_code"] not in (0, None)
        and killed["seconds"] < 30
        and killed["processes_left"] == 0
        and killed["names_rank"]
        and killed["names_log"]
    )
    return ended and all(
        life["exit_code"] == 0
        and life["at_step"] == kind.steps
        and life["from_checkpoint"] == 1
        and life["steps_missing"] == 0
        and life["losses_apart"] == 0
        for life in (found["continued"], found["restarted"])
    )


def main(name: str) -> int:
    with tempfile.TemporaryDirectory(prefix="two-hosts-") as folder:
        found = run(Path(folder), KINDS[name])
    print(json.dumps({"kind": name, **found}))
    return 0 if fine(found, KINDS[name]) else 1


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["clip"])))
