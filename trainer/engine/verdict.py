"""What all ranks agree on in each step, in one small collective: loss, counts, wish to stop.

The numbers travel to the host while the device computes on, so to know them before the weights
change costs no idle device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Agreed:
    """A vector that is summed over ranks now and read later."""

    def __init__(self, vector: torch.Tensor, ranks: int) -> None:
        """``vector``: float64[n] on the device; it is not used by the caller any more."""
        import torch
        import torch.distributed as dist

        if ranks > 1:
            dist.all_reduce(vector)
        self._event: Any = None
        self._host = vector
        if vector.is_cuda:
            self._host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            self._host.copy_(vector, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def values(self) -> list[float]:
        """Return the sums; waits for them, not for what the device was given since."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._host.tolist()
        return values
