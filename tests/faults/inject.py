"""Kill a process, or fail an operation, at the n-th primitive storage operation.

In Python::

    inject.install(kill_at=17)                      # dies before the 17th operation
    inject.install(seed=5, among=240)               # operation and mode drawn from the seed
    inject.install(kill_at=3, mode="enospc")        # the operation raises "disk full" instead

Around any command, its Python child processes included (the operations of all of them are
numbered together, by a counter in a file)::

    env = inject.environment(counter=tmp / "ops", kill_at=17, mode="torn")
    subprocess.run([sys.executable, "-m", "dataflows", "run", ...], env={**os.environ, **env})
    inject.operations(tmp / "ops")                  # how many there were

Modes: ``before`` and ``after`` the operation; ``torn``: half of a write reaches the disk (on S3 a
first part of an upload that is never completed), other operations are atomic and are not done;
``enospc``: OSError instead of death. ``scope="group"`` kills the whole process group, as when
the machine stops; the default kills the process that reaches the operation, as when a worker dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from schemas.storage_local import LocalBackend
from schemas.storage_remote import RemoteBackend

VARIABLE = "HEADRACE_TEST_FAULT"
MODES = ("before", "after", "torn", "enospc")
EXIT = 137
LOCAL = (
    "do_write",
    "do_sync_file",
    "do_link",
    "do_rename",
    "do_unlink",
    "do_make_dir",
    "do_sync_dir",
)
REMOTE = ("do_put", "do_put_file", "do_delete")

_originals: dict[tuple[type, str], Any] = {}


class Plan:
    """Counts operations and strikes at one of them."""

    def __init__(
        self, kill_at: int, mode: str, counter: Path | None, scope: str, record: list[str] | None
    ) -> None:
        self.kill_at, self.mode, self.counter, self.scope = kill_at, mode, counter, scope
        self.record = record
        self.count = 0
        self.lock = threading.Lock()

    def number(self, label: str) -> int:
        with self.lock:
            self.count += 1
            if self.record is not None:
                self.record.append(label)
            if self.counter is None:
                return self.count
            with open(self.counter, "a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(label + "\n")
                file.flush()
                file.seek(0)
                return sum(1 for _ in file)

    def die(self) -> None:
        if self.scope == "group":
            os.killpg(0, signal.SIGKILL)
        os._exit(EXIT)

    def call(self, name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        target = args[-2] if name == "do_put" else args[-1]
        if self.number(f"{name} {target if isinstance(target, str) else ''}") != self.kill_at:
            return original(*args)
        if self.mode == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.mode == "torn":
            tear(name, original, args)
        elif self.mode == "after":
            original(*args)
        self.die()
        return None


def tear(name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Do half of an operation, where it has halves."""
    if name == "do_write":
        backend, file, data, path = args
        view = memoryview(data).cast("B")
        original(backend, file, view[: len(view) // 2], path)
    elif name == "do_put_file" and args[0].protocol == "s3":
        backend, path, source = args
        bucket, key, _ = backend.fs.split_path(path)
        upload = backend.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
        backend.fs.call_s3(
            "upload_part",
            Bucket=bucket,
            Key=key,
            PartNumber=1,
            UploadId=upload["UploadId"],
            Body=Path(source).read_bytes()[: 5 << 20],
        )


def install(
    kill_at: int = 0,
    *,
    seed: int | None = None,
    among: int = 100,
    mode: str | None = None,
    counter: Path | None = None,
    scope: str = "process",
    record: list[str] | None = None,
) -> Plan:
    """Number every primitive operation of this process and strike at ``kill_at`` (0: never).

    With ``seed``, operation (1 to ``among``) and mode are drawn from it and printed. ``record``
    collects one line for each operation.
    """
    if seed is not None:
        draw = random.Random(seed)
        kill_at = draw.randint(1, among)
        mode = mode or draw.choice(MODES[:3])
        print(f"faults: seed {seed} strikes at {kill_at} ({mode})", file=sys.stderr, flush=True)
    mode = mode or "before"
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {MODES}")
    remove()
    plan = Plan(kill_at, mode, counter, scope, record)
    for owner, names in ((LocalBackend, LOCAL), (RemoteBackend, REMOTE)):
        for name in names:
            _wrap(plan, owner, name)
    return plan


def _wrap(plan: Plan, owner: type, name: str) -> None:
    original = _originals[owner, name] = getattr(owner, name)

    @functools.wraps(original)
    def counted(*args: Any) -> Any:
        return plan.call(name, original, args)

    setattr(owner, name, counted)


def remove() -> None:
    """Restore the operations."""
    for (owner, name), original in _originals.items():
        setattr(owner, name, original)
    _originals.clear()


@contextlib.contextmanager
def installed(kill_at: int = 0, **options: Any) -> Iterator[Plan]:
    """Install for a block."""
    try:
        yield install(kill_at, **options)
    finally:
        remove()


def environment(
    counter: Path, kill_at: int = 0, mode: str = "before", scope: str = "process"
) -> dict[str, str]:
    """Return variables under which every Python process installs itself (see ``site/``)."""
    here = Path(__file__).resolve().parent
    path = [str(here / "site"), str(here.parent.parent), os.environ.get("PYTHONPATH", "")]
    return {
        VARIABLE: f"{kill_at}|{mode}|{scope}|{counter}",
        "PYTHONPATH": os.pathsep.join(p for p in path if p),
    }


def install_from_environment() -> None:
    """Do what ``environment`` asked for."""
    kill_at, mode, scope, counter = os.environ[VARIABLE].split("|", 3)
    install(int(kill_at), mode=mode, scope=scope, counter=Path(counter))


def operations(counter: Path) -> list[str]:
    """Return the operations that were numbered, in order."""
    return counter.read_text().splitlines() if counter.exists() else []
