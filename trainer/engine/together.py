"""What ranks do together: one decides for all, or each tells all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from schemas.errors import HeadraceError, JobError
from trainer.protocols import Place

T = TypeVar("T")


def agreed(place: Place, work: Callable[[], T]) -> T:
    """Do `work` on rank 0; every rank returns its result, or raises its HeadraceError."""
    result: list[Any] = [None]
    if place.rank == 0:
        try:
            result = [work()]
        except HeadraceError as error:
            result = [error]
    if place.ranks > 1:
        import torch.distributed

        torch.distributed.broadcast_object_list(result, src=0)
    if isinstance(result[0], HeadraceError):
        raise result[0]
    value: T = result[0]
    return value


def everyone(place: Place, value: T) -> list[T]:
    """Return the value of every rank, in their order."""
    if place.ranks == 1:
        return [value]
    import torch.distributed

    values: list[Any] = [None] * place.ranks
    torch.distributed.all_gather_object(values, value)
    return values


def loss_of_peer(error: BaseException, place: Place, logs: object) -> JobError | None:
    """Return what to raise if an error says that another rank is gone, else None."""
    import torch.distributed as dist

    lost = isinstance(error, dist.DistNetworkError | dist.DistBackendError | dist.DistStoreError)
    if not lost and not (isinstance(error, RuntimeError) and "gloo" in str(error).lower()):
        return None
    line = " ".join(str(error).split())[:160]
    return JobError(
        f"rank {place.rank} lost its connection to another rank ({line}): see why that one ended "
        f"in {logs}; the same command continues"
    )
