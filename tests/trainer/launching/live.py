"""A real step of DeepSpeed on the CPU, and the bytes of all storages that are alive during it.

One process stands for many ranks: its collectives do nothing, so the numbers that come out mean
nothing, and the memory is that of one rank.
"""

from __future__ import annotations

import gc
import os
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from trainer.config import RunConfig
from trainer.engine.sizes import Sizes
from trainer.protocols import Place


class LiveStorages(TorchDispatchMode):
    """Follows every storage from the operator that makes it to its end.

    ``before``: bytes alive at the beginning, ``now``, and ``peak``: the most at any moment since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self._sizes: dict[int, int] = {}
        for tensor in _all_tensors():
            self._follow(tensor)
        self.before = self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._follow, out)
        self.peak = max(self.peak, self.now)
        return out

    def _follow(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._end, key).atexit = False
        return tensor

    def _end(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def _all_tensors() -> list[torch.Tensor]:
    gc.collect()
    return [
        one
        for one in gc.get_objects()
        if issubclass(type(one), torch.Tensor) and one.device.type == "cpu"
    ]


@dataclass(frozen=True)
class Tracked:
    """Bytes: of the model states and buffers, alive before the step, and the most during it."""

    before: int
    peak: int


def tracked(
    model: Any, config: RunConfig, ranks: int, batch: dict[str, torch.Tensor], warm: int
) -> Tracked:
    """Return the memory of the forward and backward pass of one micro-batch on one rank of ``ranks``.

    ``warm`` steps of 8 tokens come before: stage 3 learns the order of modules from two. The optimizer
    makes no step, so there are no moments.
    """
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ["DS_ACCELERATOR"] = "cpu"
    from trainer.engine import deepspeed

    nothing = sum(one.untyped_storage().nbytes() for one in _distinct(_all_tensors()))
    nothing -= sum(p.nbytes for p in model.parameters())
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    rows = len(batch["input_ids"])
    engine = deepspeed.start(
        model, config, Sizes(rows * ranks, ranks, rows, rows, 1, 9), Place(0, ranks)
    )
    for _ in range(warm):
        _step(engine, {name: value[:, :8] for name, value in batch.items()})
        _forget(engine)
    live = LiveStorages()
    with live:
        _step(engine, batch)
    engine.destroy()
    deepspeed.leave()
    return Tracked(live.before - nothing, live.peak - nothing)


def _distinct(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return list({one.untyped_storage()._cdata: one for one in tensors}.values())


def _step(engine: Any, batch: dict[str, torch.Tensor]) -> None:
    engine.set_gradient_accumulation_boundary(True)
    found = engine(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        targets=batch["labels"],
        rows=None,
    )
    loss = found["loss"].sum()
    del found
    engine.backward(loss, scale_wrt_gas=False)


def _forget(engine: Any) -> None:
    """Drop gradients, as a step of the optimizer does."""
    engine.optimizer.zero_grad()
    for group in getattr(engine.optimizer, "averaged_gradients", {}):
        engine.optimizer.averaged_gradients[group] = None
