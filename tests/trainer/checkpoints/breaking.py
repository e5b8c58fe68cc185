"""Saves killed before every operation on the disk, and what else goes wrong, on purpose."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class _Killed(BaseException):
    """The process ends here: nothing of the save runs after."""


def kill_everywhere(folder: str, save: Callable[[str, int], None]) -> list[dict[str, Any]]:
    """Save step 9 over and over, killed before each operation on the disk in turn; after each,
    what a continued run finds, and what lies there after its next save."""
    from schemas.storage import storage
    from schemas.storage_local import LocalBackend
    from trainer.engine import checkpoint
    from trainer.engine.checkpoint_files import remove

    at = storage(folder)
    found: list[dict[str, Any]] = []
    for limit in range(1, 1000):
        left = [limit]
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in dir(LocalBackend) if name.startswith("do_")]:
                patch.setattr(LocalBackend, name, _counted(getattr(LocalBackend, name), left))
            try:
                save("step-00000009", 9)
            except _Killed:
                pass
            else:
                return found
        one: dict[str, Any] = {"killed": limit, "latest": checkpoint.latest(at)}
        one["readable"] = len(checkpoint.read_weights(at, str(one["latest"])))
        save("step-00000007", 7)
        one["left"] = at.list()
        found.append(one)
        remove(at, "step-00000009")
        remove(at, "step-00000007")
        at.replace("latest", b"step-00000003\n")
    raise AssertionError("the save never came to its end")


def _counted(operation: Any, left: list[int]) -> Any:
    def counted(self: Any, *args: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            raise _Killed
        return operation(self, *args)

    return counted


@contextlib.contextmanager
def broken(one: dict[str, Any]) -> Iterator[None]:
    """Break the code under test, the disk of the last rank, or a checkpoint."""
    import torch.distributed as dist

    from schemas.storage_local import LocalBackend
    from trainer.engine.checkpoint_state import EngineState

    last = dist.get_rank() == dist.get_world_size() - 1

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        if one.get("break") == "no refresh":
            patch.setattr(EngineState, "refresh", lambda self: None)
        if one.get("break") == "full disk" and last:
            patch.setattr(LocalBackend, "do_write", full)
        if (damaged := one.get("truncate")) and last:
            path = next(Path(damaged[0]).glob(damaged[1]))
            os.truncate(path, path.stat().st_size - 1)
        dist.barrier()
        yield
