"""Representations of micro-batches as leaves of one loss, and its gradient led back through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = "Mapping[str, torch.Tensor]"


def joined(found: Sequence[Tensors]) -> dict[str, torch.Tensor]:
    """Micro-batches' representations as leaves of the loss: [n, ...] in fp32, or 0-d as they are
    in the first micro-batch, for they are the same in all."""
    import torch

    out: dict[str, torch.Tensor] = {}
    for name, first in found[0].items():
        parts = [tensors[name].detach() for tensors in found]
        value = torch.cat(parts) if first.ndim else first.detach()
        if value.is_floating_point():
            value = value.float() if value.element_size() < 4 else value
            # A view of the model's own tensor must not become a leaf of ours.
            value = value.clone() if value.data_ptr() == first.data_ptr() else value
            value.requires_grad_()
        out[name] = value
    return out


def pulled(
    found: Tensors, gradients: Tensors, start: int, stop: int, *, first: bool
) -> torch.Tensor:
    """A scalar whose gradient is that of the loss, led back through one micro-batch.

    0-d representations are shared by all micro-batches: the first one takes their whole gradient.
    """
    total: Any = None
    for name, value in found.items():
        if not value.requires_grad or name not in gradients:
            continue
        gradient = gradients[name]
        own = gradient[start:stop] if value.ndim else gradient if first else 0.0
        part = (value * own).sum()
        total = part if total is None else total + part
    if total is None:
        raise ValueError("no representation depends on a trainable parameter")
    return cast("torch.Tensor", total)
