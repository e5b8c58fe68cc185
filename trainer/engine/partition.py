"""Weights cut over ranks (ZeRO-3) as they are made: no rank ever holds all of them.

A model that is built without weights (`trainer.models.weights`) gets them here, one parameter after the
other: rank 0 makes it, all receive it, and each keeps its part before the next is made. Import this
module only in a process that trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainer.config import RunConfig
from trainer.protocols import Place

if TYPE_CHECKING:
    import torch


def wanted(config: RunConfig) -> bool:
    """Return whether models of this process are built without weights, for `partition`: at stage 3, and
    if it has joined others (a run that is only looked at has nobody to share weights with)."""
    import torch.distributed as dist

    return config.zero == 3 and dist.is_available() and dist.is_initialized()


def is_hollow(model: Any) -> bool:
    """Return whether a model still has no weights."""
    return any(parameter.is_meta for parameter in model.parameters())


def partition(model: Any, settings: dict[str, Any], config: RunConfig, place: Place) -> None:
    """Give a hollow model the weights of its ``origin``, cut over ranks, in the run's precision.

    ``settings``: DeepSpeed's. A parameter without dimensions stays whole. Called by all ranks, after
    DeepSpeed has joined them.
    """
    import torch
    from deepspeed.runtime.zero.partition_parameters import Init

    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    made: dict[int, tuple[Any, Any]] = {}
    first: Any = None
    for path, module in model.named_modules():
        for name, empty in module.named_parameters(recurse=False):
            if id(empty) not in made:
                whole = _whole(model, f"{path}.{name}" if path else name, empty, dtype, place)
                full = torch.nn.Parameter(whole, empty.requires_grad)
                del whole
                if first is not None and full.ndim:
                    first.convert_to_zero_parameters(param_list=[full])
                elif full.ndim:
                    alone = torch.nn.Module()
                    alone.weight = first = full
                    Init(module=alone, config_dict_or_path=settings)
                made[id(empty)] = empty, full
            module._parameters[name] = made[id(empty)][1]
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(place.device)


def _whole(
    model: Any, name: str, empty: torch.Tensor, dtype: torch.dtype, place: Place
) -> torch.Tensor:
    """A parameter on rank 0; elsewhere room for what rank 0 sends when it is cut."""
    import torch

    if place.rank and empty.ndim:
        return torch.empty(empty.shape, dtype=dtype, device=place.device)
    found: torch.Tensor = model.origin(name)
    return found.to(place.device, dtype)


def unrounded(engine: Any, origin: Any, place: Place) -> None:
    """Set the fp32 masters of a run in bf16 to the weights that were rounded for the forward pass.

    DeepSpeed takes them from the rounded ones. Called by all ranks.
    """
    from trainer.engine.checkpoint_files import MASTERS
    from trainer.engine.checkpoint_state import EngineState

    state = EngineState(engine)
    for name, shape in state.shapes.items():
        if state.trained(name):
            value = origin(name) if place.rank == 0 else None
            state.put(name, MASTERS, state.share(value, shape, 0))
    state.refresh()


class Frozen:
    """A model that is only read, cut over ranks as a run's own model is (ZeRO-3).

    Called by all ranks at once, like everything that gathers weights.
    """

    def __init__(self, config: RunConfig, model: Any, device: str) -> None:
        """``model``: hollow, none of whose parameters train. After `trainer.engine.deepspeed.start`."""
        import deepspeed
        import torch.distributed as dist

        zero = dict(config.deepspeed.get("zero_optimization", {}))
        zero.pop("offload_optimizer", None)
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "steps_per_print": None,
            "zero_optimization": {**zero, "stage": 3},
            "bf16": {"enabled": config.precision == "bf16"},
        }
        place = Place(dist.get_rank(), dist.get_world_size(), device=device)
        partition(model, settings, config, place)
        self.model = model
        # Its hooks gather a module's weights before it computes, and let them go after.
        self._engine, *_ = deepspeed.initialize(
            model=model, config=settings, dist_init_required=False
        )

    @contextmanager
    def gathered(self, parameter: Any) -> Iterator[torch.Tensor]:
        """A parameter, whole; what keeps a view of it keeps it after the end."""
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter]):
            yield parameter.detach()
