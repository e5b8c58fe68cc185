"""Model states of a rank, counted before a run starts: weights, gradients, fp32 masters and moments.

For AdamW in bf16 at stages 2 and 3 they equal DeepSpeed's own estimators
(``estimate_zero2_model_states_mem_needs_all_live``, ``estimate_zero3_...``), to the byte. Activations,
temporaries and communication buffers are in `trainer.launching.stages`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.config import RunConfig

HOST_FACTOR = 1.5
"""Of the host's memory at an offload: what DeepSpeed's estimators add for its buffers."""


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


@dataclass(frozen=True)
class States:
    """Bytes of model states: on the device of a rank, and in the memory of a host with offload."""

    device: int
    host: int = 0


def model_states(
    of: Parameters,
    stage: int,
    ranks: int,
    *,
    bf16: bool,
    moments: int = 8,
    hosts: int = 1,
    offload: bool = False,
) -> States:
    """Return the model states at a ZeRO stage on ``ranks`` ranks of ``hosts`` hosts.

    ``offload``: the optimizer's part lies on the host (stages 1 to 3). Stages 2 and 3 in bf16 count as
    DeepSpeed's estimators do: 18 bytes a parameter with AdamW are shared, of which at stage 2 two are a
    bf16 gradient and at stage 3 the weight, and there the largest module is whole, with its gradients.
    In fp32 a weight has 4 bytes, and no copy of its gradient.
    """
    weight = 2 if bf16 else 4
    gradients = weight + (4 if bf16 else 0)
    master = 4 if bf16 or stage else 0  # in fp32 at stage 0 the weights are the masters
    optimizer = master + moments
    if not stage:
        return States(weight * of.total + (gradients + optimizer) * of.trained)
    host = int((4 + optimizer) * of.trained * (1 / hosts) * HOST_FACTOR) if offload else 0
    if stage == 3:
        gathered = 2 * weight * of.largest
        shared = weight * of.total
        if not offload:
            shared += (4 + optimizer) * of.trained
        return States(gathered + int(shared / ranks), host)
    if stage == 2:
        shared = (gradients + optimizer) * of.trained
        if offload:
            whole = max(4 * ranks, 4 + optimizer) * of.trained  # for all hosts, as DeepSpeed says
            return States(weight * of.total, int(whole * HOST_FACTOR))
        return States(weight * of.total + int(shared / ranks))
    whole_gradients = gradients * of.trained  # stage 1 keeps them on every rank
    if offload:
        return States(weight * of.total + weight * of.trained, host)
    return States(weight * of.total + whole_gradients + int(optimizer * of.trained / ranks))


def kept(
    of: Parameters, stage: int, ranks: int, *, bf16: bool, moments: int = 8, offload: bool = False
) -> int:
    """Return the bytes that a rank holds between two steps, when no gradient is left.

    They differ from `model_states` by what only a step needs, and by DeepSpeed's fp32 buffers of
    gradients, which stay: whole at stage 1 in bf16, a rank's part at stage 3. With ``offload`` the
    masters, moments and those of stage 3 are on the host.
    """
    weight = 2 if bf16 else 4
    shared = (4 if bf16 or stage else 0) + moments
    buffer = 4 if bf16 and stage == 1 and not offload else 0
    if not stage:
        return weight * of.total + shared * of.trained
    if offload:
        return weight * of.total // (ranks if stage == 3 else 1)
    if stage == 3:
        return (weight * of.total + (4 + shared) * of.trained) // ranks
    return weight * of.total + buffer * of.trained + shared * of.trained // ranks
