"""A small dataset and the words of a run of seconds on it, for the tests of launching."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.storage import storage
from schemas.table_schemas import POOL
from tests.schemas import samples
from trainer.cli import main

TRAINER = (sys.executable, "-m", "trainer")


def pairs(root: Path, rows: int = 256) -> Path:
    """A committed dataset of pictures that the trainer renders, with texts."""
    table = samples.pool(rows)
    urls = [f"generated://pool/0/{i}/household/kettle" for i in range(rows)]
    column = table.schema.get_field_index("url")
    table = table.set_column(column, "url", pa.array(urls))
    samples.committed(storage(root), POOL, table, target_bytes=20_000)
    return root


def words(data: Path, output: Path, steps: int, *more: str) -> list[str]:
    """The settings of a tiny run."""
    return [
        "metaclip2-tiny",
        f"data.path={data}",
        "data.images=generated",
        "data.render_size=32",
        f"output={output}",
        "model.image=32",
        "model.context=12",
        "tokenizer.vocabulary=300",
        "batch.size=8",
        "schedule.warmup=0",
        f"length.steps={steps}",
        "log_every=1",
        *more,
    ]


def wait_for(
    condition: Callable[[], object], seconds: float, process: subprocess.Popen[str]
) -> None:
    """Wait until the condition holds; an error if the process ends or the time is up before."""
    until = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}: {process.communicate()[0]}")
        if time.monotonic() > until:
            process.send_signal(signal.SIGTERM)
            raise TimeoutError(f"nothing for {seconds} s: {process.communicate()[0]}")
        time.sleep(0.05)


def start(command: Sequence[str], **kwargs: object) -> subprocess.Popen[str]:
    """A process whose output is collected, both streams as one.

    It hears Ctrl-C and SIGHUP, which shells (in the background) and nohup have their children ignore.
    """
    heard = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in heard}
    try:
        for number, handler in before.items():
            if handler == signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs
        )  # type: ignore[call-overload, no-any-return]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def rank_process(rank: int, needle: str = "") -> int:
    """The process id of a rank: the only one with that RANK whose log file's path has `needle`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit() or b"trainer.launching.rank" not in (
                (folder / "cmdline").read_bytes()
            ):
                continue
            variables = (folder / "environ").read_bytes().split(b"\0")
            open_files = [os.readlink(fd) for fd in (folder / "fd").iterdir()]
        except OSError:
            continue  # ended meanwhile
        if f"RANK={rank}".encode() in variables and any(needle in name for name in open_files):
            found.append(int(folder.name))
    (pid,) = found
    return pid


def planned(
    capsys: pytest.CaptureFixture[str], data: Path, output: Path, *more: str, code: int = 0
) -> dict[str, Any]:
    """What `trainer plan --json` says."""
    given = {w.partition("=")[0]: w for w in (*words(data, output, 40), *more)}
    assert main(["plan", *given.values(), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found
