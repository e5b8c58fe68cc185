"""The `trainer` command in a forked child: torch and DeepSpeed are imported once for many commands."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

IMPORTED = (
    *("deepspeed", "trainer.cli", "trainer.engine.run", "trainer.engine.checkpoint"),
    *("trainer.models.decoder_model", "trainer.models.decoder", "trainer.objectives.language"),
    *("trainer.sources.tokens", "trainer.evaluation.language"),
)
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed on both streams."""

    code: int
    said: str


def prepare() -> None:
    """Import what the commands need, on the CPU and one thread."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["DS_ACCELERATOR"] = "cpu"
    for name in IMPORTED:
        import_module(name)


def trainer(*words: object) -> Ended:
    """Run `trainer WORDS`."""
    from trainer.cli import main

    return in_child(lambda: main([str(word) for word in words]))


def in_child(work: Callable[[], int]) -> Ended:
    """Do the work in a child of its own; its exit code is what it returns, 1 for an exception."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if (pid := os.fork()) == 0:
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  the old one is of a file
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        code = 1
        try:
            code = work()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 2
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said)


def own_mounts() -> None:
    """Give this process mounts of its own; OSError without the right to."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEW_MOUNTS):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def mount(folder: Path, size: str, *, again: bool = False) -> None:
    """Mount a file system in memory of `size` at a folder, or give the one there another size."""
    how = ["-o", f"remount,size={size}"] if again else ["-t", "tmpfs", "-o", f"size={size}"]
    subprocess.run(["mount", *how, "tmpfs", str(folder)], check=True)
