"""Where DeepSpeed 0.19 keeps masters and moments of a parameter, by ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Part:
    """This rank's part of a parameter: `count` elements from `start` on, which lie in ``owner``
    (flattened, the optimizer's own tensor) from ``offset`` on."""

    owner: torch.Tensor
    offset: int
    start: int
    count: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """Return this part of a tensor shaped as the owner."""
        return flat.detach().view(-1).narrow(0, self.offset, self.count)


def find_parts(engine: Any, parameters: Mapping[str, Any]) -> dict[str, Part | None]:
    """Parts of trained parameters; None where this rank has nothing of one.

    UsageError for masters that are not fp32: a checkpoint says that they are.
    """
    found = _found(engine, parameters)
    for name, part in found.items():
        if part is not None:
            check_fp32(name, "the master", part.owner)
    return found


def check_fp32(name: str, what: str, tensor: torch.Tensor) -> None:
    """Raise UsageError unless what the optimizer has of the parameter `name` is fp32.

    Cast on the way, a checkpoint would declare bits that no step ever computed.
    """
    import torch

    if tensor.dtype != torch.float32:
        raise UsageError(
            f"{what} of {name} is {str(tensor.dtype).removeprefix('torch.')}, and checkpoints hold "
            "float32: give precision=bf16 or fp32, which keep float32 masters and moments, and leave out "
            "settings in deepspeed: and the model that change them"
        )


def _found(engine: Any, parameters: Mapping[str, Any]) -> dict[str, Part | None]:
    wrapper, stage = engine.optimizer, engine.zero_optimization_stage()
    trained = {
        name: value
        for name, value in parameters.items()
        if value.requires_grad and shape_of(value).numel()
    }
    if stage == 3:
        if getattr(wrapper, "swap_optimizer", False):
            raise UsageError(
                "the optimizer's state lies on NVMe (deepspeed.zero_optimization."
                "offload_optimizer): checkpoints need it in memory, give device: cpu"
            )
        return {name: _part_of_stage_3(wrapper, value) for name, value in trained.items()}
    if stage > 0:
        return {name: _part_of_group(wrapper, value) for name, value in trained.items()}
    if hasattr(wrapper, "fp32_groups"):
        high = {id(weight): master for weight, master in pairs(wrapper)}
        return {name: _whole(high[id(value)]) for name, value in trained.items()}
    return {name: _whole(value) for name, value in trained.items()}


def _part_of_stage_3(wrapper: Any, parameter: Any) -> Part | None:
    group, offset, size = wrapper.grad_position[wrapper.get_param_id(parameter)]
    rank, total = wrapper._get_param_partition_rank(parameter), shape_of(parameter).numel()
    start = min(size * rank, total)  # the last ranks may hold padding only
    owner = wrapper.fp32_partitioned_groups_flat[group]
    return Part(owner, offset, start, min(size, total - start))


def _part_of_group(wrapper: Any, parameter: Any) -> Part | None:
    link = parameter._hp_mapping
    if link is None:
        return None
    owners = getattr(wrapper, "single_partition_of_fp32_groups", None)
    owners = wrapper.fp32_groups_flat_partition if owners is None else owners
    high, low = link.hp_fragment_address, link.lp_fragment_address
    return Part(owners[link.param_group_index], high.start, low.start, high.numel)


def shape_of(parameter: Any) -> torch.Size:
    """A parameter's own shape; at stage 3 the tensor itself is empty between uses."""
    import torch

    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def _whole(owner: torch.Tensor) -> Part:
    return Part(owner, 0, 0, owner.numel())


def pairs(wrapper: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(weight of the forward, master) of stage 0 in bf16."""
    for low, high in zip(wrapper.fp16_groups, wrapper.fp32_groups, strict=True):
        yield from zip(low, high, strict=True)
