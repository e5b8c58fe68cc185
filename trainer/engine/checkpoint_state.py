"""What a DeepSpeedEngine holds of each parameter, under every ZeRO stage, as one view.

A parameter has an fp32 master, moments and a step count, whole on every rank (stage 0) or cut
into parts of flat tensors (stages 1 to 3), and the weight that the forward uses, in the precision
of the run. Sums over ranks are taken of bit patterns, which adds nothing to any number: a sum of
floats turns -0.0 into 0.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.errors import UsageError
from trainer.engine.checkpoint_files import MASTERS
from trainer.engine.checkpoint_parts import Part, check_fp32, find_parts, pairs, shape_of

if TYPE_CHECKING:
    import torch

_GATHERED_TOGETHER = 64
"""Parameters of stage 3 that are whole at one time while their weights are read."""


class EngineState:
    """View of an engine's parameters and optimizer by name; names as in ``named_parameters``."""

    def __init__(self, engine: Any) -> None:
        import torch

        self._engine = engine
        self._wrapper = engine.optimizer
        self._stage = engine.zero_optimization_stage()
        self.rank, self.ranks = place()
        self._parameters = dict(engine.module.named_parameters())
        self._buffers = _persistent_buffers(engine.module)
        self._masters = find_parts(engine, self._parameters)
        first = next(iter(self._parameters.values()), None)
        self.precision = torch.float32 if first is None else first.dtype
        """Of the weights that the forward uses."""

    # -- what there is ------------------------------------------------------------------------

    @property
    def partitioned(self) -> bool:
        """Whether masters and moments are cut over ranks; else every rank has all of them."""
        return self._stage > 0

    @property
    def gathered(self) -> bool:
        """Whether the forward's weights are gathered from all ranks; else each rank has its own."""
        return self._stage == 3

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shape of each parameter, in the model's order."""
        return {name: list(shape_of(value)) for name, value in self._parameters.items()}

    @property
    def buffers(self) -> Mapping[str, torch.Tensor]:
        """Persistent buffers of the model."""
        return self._buffers

    @property
    def tied(self) -> dict[str, str]:
        """{other name of a parameter: the name it is kept under}."""
        by_id = {id(value): name for name, value in self._parameters.items()}
        every = self._engine.module.named_parameters(remove_duplicate=False)
        return {n: by_id[id(p)] for n, p in every if by_id[id(p)] != n}

    def trained(self, name: str) -> bool:
        """Whether the optimizer has this parameter (the same on all ranks)."""
        return name in self._masters

    def moments(self) -> dict[str, dict[str, Any]]:
        """Return {parameter: {moment: True, "step": count}}, the same on all ranks.

        Errors: UsageError for an optimizer whose state is not fp32 of the parameters' shape.
        """
        import torch

        mine: dict[str, dict[str, Any]] = {}
        for name, part in self._masters.items():
            if part is None:
                continue
            found: dict[str, Any] = {}
            for key, value in self._state_of(part.owner).items():
                if key == "step" and value is not None:  # 0-d, as some parameters are
                    found[key] = float(value)
                elif isinstance(value, torch.Tensor) and value.shape == part.owner.shape:
                    check_fp32(name, f"the moment {key}", value)
                    found[key] = True
                elif value is not None:
                    raise UsageError(
                        f"optimizer state {key!r} of {name} is not of the parameter's shape, so no "
                        "checkpoint can hold it for any number of ranks: use optimizer.name=adamw "
                        "or sgd"
                    )
            mine[name] = found
        merged: dict[str, dict[str, Any]] = {name: {} for name in self._masters}
        for one in everywhere(mine):
            for name, found in one.items():
                merged[name].update(found)
        return merged

    # -- reading ------------------------------------------------------------------------------

    def collect(self, name: str, kind: str, to: int) -> torch.Tensor | None:
        """Return the whole fp32 tensor on rank `to` (None elsewhere). Called by all ranks."""
        import torch
        import torch.distributed as dist

        if name not in self._masters:
            return self._frozen(self._parameters[name], to)
        part, shape = self._masters[name], shape_of(self._parameters[name])
        if not self.partitioned:
            assert part is not None
            return part.of(self._tensor(part, kind)).view(shape) if self.rank == to else None
        whole = torch.zeros(shape.numel(), dtype=torch.float32, device=self._device)
        if part is not None and part.count:
            piece = part.of(self._tensor(part, kind)).to(self._device, torch.float32)
            whole.narrow(0, part.start, part.count).copy_(piece)
        if self.ranks > 1:
            dist.reduce(whole.view(torch.int32), to)
        return whole.view(shape) if self.rank == to else None

    def forward_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the weights that the next forward uses, whole, on every rank, in model order.

        Called by all ranks. A tensor is good until the next is asked for.
        """
        names = list(self._parameters)
        if not self.gathered:
            for name in names:
                yield name, self._parameters[name].detach()
            return
        from deepspeed.runtime.zero import GatheredParameters

        for start in range(0, len(names), _GATHERED_TOGETHER):
            some = names[start : start + _GATHERED_TOGETHER]
            with GatheredParameters([self._parameters[name] for name in some]):
                for name in some:
                    yield name, self._parameters[name].detach()
        self._wrapper.checkpoint_event_epilogue()  # small parameters stay whole between steps

    def share(self, value: torch.Tensor | None, shape: Sequence[int], source: int) -> torch.Tensor:
        """Return on all ranks the fp32 tensor that rank `source` has. Called by all ranks."""
        import torch
        import torch.distributed as dist

        if value is None:
            whole = torch.empty(tuple(shape), dtype=torch.float32, device=self._device)
        else:
            whole = value.to(self._device, torch.float32).contiguous()
        if self.ranks > 1 and whole.numel():
            dist.broadcast(whole, source)
        return whole

    # -- writing ------------------------------------------------------------------------------

    def prepare(self, moments: Mapping[str, Mapping[str, Any]]) -> None:
        """Make the optimizer's state have these moments (as of `moments`), zero for now.

        Errors: UsageError when parameters that share a flat tensor have different step counts.
        """
        wanted: dict[torch.Tensor, dict[str, Any]] = {}
        says: dict[torch.Tensor, str] = {}
        for name, part in self._masters.items():
            if part is None:
                continue
            state = wanted.setdefault(part.owner, {})
            found = moments.get(name, {})
            if found.get("step", 0) and state.get("step", 0) not in (0, found["step"]):
                raise UsageError(
                    f"the checkpoint has {name} at optimizer step {found['step']:g} and "
                    f"{says[part.owner]} at {state['step']:g}; zero={self._stage} keeps one step "
                    "for both: continue with zero=0"
                )
            if found:
                state.update(found)
                says[part.owner] = name
        for owner, state in wanted.items():
            self._prepare_owner(owner, state)

    def put(self, name: str, kind: str, value: torch.Tensor) -> None:
        """Set a master or a moment from its whole fp32 tensor; frozen parameters are set whole.

        Called by all ranks with the same tensor.
        """
        if name not in self._masters:
            self._put_frozen(self._parameters[name], value)
            return
        part = self._masters[name]
        if part is not None and part.count:
            piece = value.reshape(-1).narrow(0, part.start, part.count)
            part.of(self._tensor(part, kind)).copy_(piece)

    def put_buffer(self, name: str, value: torch.Tensor) -> None:
        """Set a persistent buffer."""
        self._buffers[name].copy_(value)

    def refresh(self) -> None:
        """Make the forward's weights those of the masters: DeepSpeed does so only after a step.

        Called by all ranks.
        """
        import torch

        wrapper = self._wrapper
        with torch.no_grad():
            if self._stage == 3:
                wrapper.checkpoint_event_prologue()
                for group in range(len(wrapper.fp32_partitioned_groups_flat)):
                    wrapper._reassign_or_swap_out_partitioned_parameters(group)
                wrapper.checkpoint_event_epilogue()
            elif hasattr(wrapper, "update_lp_params"):
                wrapper.update_lp_params()
            elif hasattr(wrapper, "fp32_groups"):
                for low, high in pairs(wrapper):
                    low.detach().copy_(high.detach())
        if hasattr(wrapper, "_hp_optimizer_states_linked"):
            # DeepSpeed's own views of the moments are of the tensors that were there before.
            wrapper._hp_optimizer_states_linked = False
            if all(self._state_of(p.owner) for p in self._masters.values() if p is not None):
                wrapper._lazy_init_hp_params_optimizer_state()

    # -- helpers ------------------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        import torch

        return torch.device(self._engine.device)

    def _state_of(self, owner: torch.Tensor) -> dict[str, Any]:
        base = getattr(self._wrapper, "optimizer", self._wrapper)
        found: dict[str, Any] = base.state.get(owner, {})
        return found

    def _tensor(self, part: Part, kind: str) -> torch.Tensor:
        import torch

        if kind == MASTERS:
            return part.owner
        found = self._state_of(part.owner).get(kind)
        # A parameter that had no gradient yet shares no tensor with others at stage 0 only.
        return torch.zeros_like(part.owner) if found is None else found

    def _prepare_owner(self, owner: torch.Tensor, wanted: Mapping[str, Any]) -> None:
        import torch

        base = getattr(self._wrapper, "optimizer", self._wrapper)
        if not wanted:
            base.state.pop(owner, None)
            return
        state = base.state[owner]
        for key in set(state) - set(wanted):
            del state[key]
        for key, value in wanted.items():
            if key == "step":
                group = base.param_groups[0]
                own = group.get("capturable") or group.get("fused")
                device = owner.device if own else torch.device("cpu")
                state[key] = torch.tensor(value, dtype=torch.float32, device=device)
            elif isinstance(state.get(key), torch.Tensor):
                state[key].zero_()
            else:
                state[key] = torch.zeros_like(owner, requires_grad=False)

    def _frozen(self, parameter: torch.Tensor, to: int) -> torch.Tensor | None:
        if not self.gathered:
            return parameter.detach().float() if self.rank == to else None
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter]):
            return parameter.detach().float().clone() if self.rank == to else None

    def _put_frozen(self, parameter: torch.Tensor, value: torch.Tensor) -> None:
        import torch

        with torch.no_grad():
            if not self.gathered:
                parameter.copy_(value)
                return
            from deepspeed.runtime.zero import GatheredParameters

            with GatheredParameters([parameter], modifier_rank=0):
                parameter.copy_(value)


def place() -> tuple[int, int]:
    """Return this process's rank and the number of ranks."""
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def everywhere(value: Any) -> list[Any]:
    """Return each rank's value (small Python objects), in rank order. Called by all ranks."""
    import torch.distributed as dist

    ranks = place()[1]
    if ranks == 1:
        return [value]
    found: list[Any] = [None] * ranks
    dist.all_gather_object(found, value)
    return found


def _persistent_buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that a state dict would have."""
    found = {}
    for prefix, inner in module.named_modules():
        for name, value in inner._buffers.items():
            if value is not None and name not in inner._non_persistent_buffers_set:
                found[f"{prefix}.{name}" if prefix else name] = value
    return found
