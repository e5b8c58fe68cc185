"""A run on two hosts made as network namespaces: ``python -m tests.trainer.launching.two_hosts``.

Needs root and iproute2. The hosts share the file system and nothing else: each has its own
interfaces, joined by a veth pair, and the launcher, which is in neither, starts agents there with
``ip netns exec`` from a hostfile. One rank is killed by SIGKILL in mid-run; then the same command
continues the run to its end. Prints one JSON object; namespaces and processes are always removed.
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

from tests.trainer.launching.making import TRAINER, pairs, start, wait_for, words

SUBNET = "10.213.87"
STEPS = 30


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


def last_step(output: Path) -> int:
    """The last step that metrics tell of, 0 before the first."""
    try:
        text = (output / "metrics.jsonl").read_text()
    except OSError:
        return 0
    steps = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return max((line["step"] for line in steps if "loss" in line), default=0)


def run(folder: Path, *, to_the_end: bool = True) -> dict[str, Any]:
    """Kill a rank in mid-run, then continue the run if asked; what was seen."""
    data, output = pairs(folder / "pairs"), folder / "run"
    hostfile = folder / "hosts"
    with two_hosts() as hosts:
        hostfile.write_text("".join(f"{host} slots=1\n" for host in hosts))
        command = [
            *(*TRAINER, "launch", *words(data, output, STEPS, "checkpoint.every=5")),
            *("--hostfile", str(hostfile), "--rsh", "ip netns exec"),
        ]
        launcher = start(command)
        wait_for(lambda: last_step(output) >= 7, 240, launcher)
        victims = [pid for pid, text in processes(hosts[1]).items() if "launching.rank" in text]
        environments = [_environment(pid) for h in hosts for pid in processes(h)]
        ranks = [e for e in environments if "RANK" in e]
        (victim,) = victims
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        said, _ = launcher.communicate(timeout=120)
        seconds = time.monotonic() - killed
        left = {host: processes(host) for host in hosts}
        error = next((x for x in said.splitlines() if x.startswith("trainer: error")), "")
        stopped_at = last_step(output)
        continued = _continued(command, output) if to_the_end else None
    logs = sorted(path.name for path in (output / "logs").iterdir())
    return {
        "hosts": len(hosts),
        "ranks": len(ranks),
        "master": sorted({e["MASTER_ADDR"] for e in ranks}),
        "interface": sorted({e["GLOO_SOCKET_IFNAME"] for e in ranks}),
        "killed": {
            "exit_code": launcher.returncode,
            "seconds": round(seconds, 2),
            "processes_left": sum(len(found) for found in left.values()),
            "at_step": stopped_at,
            "error": error,
            "names_rank": "rank 1" in error and "SIGKILL" in error and hosts[1] in error,
            "names_log": str(output / "logs" / "rank-0001.log") in error,
        },
        "continued": continued,
        "logs": logs,
    }


def _continued(command: list[str], output: Path) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {
        "exit_code": done.returncode,
        "at_step": last_step(output),
        "from_checkpoint": '"event": "continued"' in (output / "metrics.jsonl").read_text(),
        "said": done.stderr[-1500:] if done.returncode else "",
    }


def _environment(pid: int) -> dict[str, str]:
    with contextlib.suppress(OSError):
        pairs_ = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(pair.split("=", 1) for pair in pairs_ if "=" in pair)
    return {}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="two-hosts-") as folder:
        found = run(Path(folder))
    print(json.dumps(found))
    killed, continued = found["killed"], found["continued"]
    fine = (
        killed["exit_code"] not in (0, None)
        and killed["seconds"] < 30
        and killed["processes_left"] == 0
        and killed["names_rank"]
        and killed["names_log"]
        and continued["exit_code"] == 0
        and continued["at_step"] == STEPS
        and continued["from_checkpoint"]
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
