"""Bytes that a run needs on a rank, known before it starts.

Model states are counted, not guessed: every weight, gradient, fp32 master and moment, by ZeRO stage.
For AdamW in bf16 at stages 2 and 3 they equal DeepSpeed's own estimators
(``estimate_zero2_model_states_mem_needs``, ``estimate_zero3_...``). Activations are an estimate: the
bytes that autograd would keep for the backward pass of one micro-batch, found by running the forward
pass on the meta device. Neither counts DeepSpeed's communication buffers (its ``*_bucket_size``) nor
what the allocator loses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.config import RunConfig
from trainer.protocols import Parts

if TYPE_CHECKING:
    import torch

STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: all, those that train, and of the module that has most of its own."""

    total: int
    trained: int
    largest: int


def count(model: Any) -> Parameters:
    """Count parameters, shared ones once. ``largest``: what ZeRO-3 gathers at a time."""
    every = list(model.parameters())
    own = [sum(p.numel() for p in m.parameters(recurse=False)) for m in model.modules()]
    trained = sum(p.numel() for p in every if p.requires_grad)
    return Parameters(sum(p.numel() for p in every), trained, max(own, default=0))


def moment_bytes(config: RunConfig) -> int:
    """Bytes of optimizer state a parameter: two moments of AdamW, one of SGD with momentum."""
    if config.optimizer.name == "sgd":
        return 4 if config.optimizer.momentum else 0
    return 8


def model_states(
    of: Parameters, stage: int, ranks: int, *, bf16: bool, moments: int = 8
) -> tuple[int, int]:
    """Bytes of model states on a rank at a ZeRO stage: (weights and gradients, optimizer's part).

    The second is what ``offload_optimizer`` moves to the host's memory.
    """
    weight = 2 if bf16 else 4
    frozen = of.total - of.trained
    master = 4 if bf16 or stage else 0  # in fp32 at stage 0 the weights are the masters
    if stage == 3:
        # A whole module's weights and gradients at a time; gradients are kept in fp32.
        gathered = 2 * weight * of.largest
        held = weight * (of.trained + frozen) + 4 * of.trained
        return gathered + held // ranks, (master + moments) * of.trained // ranks
    fp32_gradient = 4 if bf16 else 0
    shared = ranks if stage else 1
    gradient = weight * of.trained // (ranks if stage == 2 else 1)
    optimizer = (fp32_gradient + master + moments) * of.trained // shared
    return weight * (of.trained + frozen) + gradient, optimizer


def activations(config: RunConfig, parts: Parts, micro: int) -> int:
    """Bytes that autograd keeps for the backward pass of a micro-batch; an estimate.

    The model is moved to the meta device. Storages are counted once; weights are not counted.
    """
    import numpy as np
    import torch

    assert parts.source is not None and parts.objective is not None
    one = parts.source.batch(np.zeros(1, np.int64))
    batch = {
        name: torch.empty((micro, *value.shape[1:]), dtype=value.dtype, device="meta")
        for name, value in one.items()
    }
    model = parts.model.to("meta")
    if config.precision == "bf16":
        model = model.to(torch.bfloat16)
        batch = {n: v.bfloat16() if v.is_floating_point() else v for n, v in batch.items()}
    weights = {_storage(p) for p in model.parameters()}
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        key = _storage(tensor)
        if key not in weights:
            # Held, lest a freed storage's number be given to another.
            kept[key] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective: Any = parts.objective
        if objective.additive:
            outputs: Mapping[str, Any] = objective.components(model, batch)
        else:
            outputs = objective.represent(model, batch)
    found = sum(size for size, _ in kept.values())
    del outputs
    return found


def _storage(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)
