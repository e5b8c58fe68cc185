"""`prism_pool RECIPE key=value ...`: a run on Prism whose workers are a pool in another process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from acceptance.checks.common import dataflows, finish
from tests.support import free_port, prism


@contextlib.contextmanager
def background(log: Path, port: int, *command: str) -> Iterator[None]:
    """A server that runs until the block ends; returns once its port answers."""
    # Workers start `python` by name: this environment's comes first.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | {"PATH": path}
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-500:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def main(words: list[str]) -> int:
    jobs, web, pool = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        worker = (
            *(sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"),
            f"--service_port={pool}",
        )
        server = (prism(), "--job_port", str(jobs), "--web_port", str(web), "--serve_http=false")
        with background(logs / "pool", pool, *worker), background(logs / "prism", jobs, *server):
            flags = [
                f"--job_endpoint=localhost:{jobs}",
                "--environment_type=EXTERNAL",
                f"--environment_config=localhost:{pool}",
            ]
            done = dataflows("run", *words, "--runner", "portable", "--", *flags)
        if done.returncode:
            print((logs / "prism").read_text()[-4000:])
    faults = [f"exit code {done.returncode}"] if done.returncode else []
    return finish({"job_endpoint": "prism", "workers": "external pool"}, faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
