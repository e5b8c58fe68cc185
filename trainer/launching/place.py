"""This process among all, from the environment as torchrun sets it."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import UsageError
from trainer.protocols import Place

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_rank(environ: Mapping[str, str]) -> bool:
    """Whether another launcher (torchrun, DeepSpeed's, a Kubernetes operator) started this process."""
    return "RANK" in environ and "WORLD_SIZE" in environ


def place_of(environ: Mapping[str, str]) -> Place:
    """Rank, ranks and device of this process; one process without the variables.

    The device is the GPU with the number of the local rank, or the CPU on a host without GPUs.
    Raises UsageError for variables that contradict each other and for more ranks than GPUs.
    """
    if not is_rank(environ):
        return Place(device=_device(0))
    missing = [name for name in _NAMES if not environ.get(name)]
    if missing:
        raise UsageError(
            f"RANK is set but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not: start"
            " ranks with `trainer launch --ranks N` or torchrun, or unset RANK and WORLD_SIZE"
        )
    rank, ranks, local = (_number(environ, name) for name in _NAMES[:3])
    if rank >= ranks:
        raise UsageError(f"RANK={rank} with WORLD_SIZE={ranks}: ranks count from 0 to {ranks - 1}")
    return Place(rank, ranks, local, _device(local))


def _number(environ: Mapping[str, str], name: str) -> int:
    if not environ[name].isdigit():
        raise UsageError(f"{name}={environ[name]!r}: must be a whole number")
    return int(environ[name])


def _device(local_rank: int) -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if local_rank >= (count := torch.cuda.device_count()):
        raise UsageError(
            f"local rank {local_rank}: this host has {count} GPUs: start at most {count} ranks on it"
        )
    return f"cuda:{local_rank}"
