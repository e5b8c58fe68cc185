"""The reference: one process, plain PyTorch, the whole batch in one forward pass, no DeepSpeed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.config import RunConfig
from trainer.engine.parts import build
from trainer.engine.schedule import learning_rate
from trainer.protocols import Batch, Place

if TYPE_CHECKING:
    import torch


def reference(config: RunConfig, *, gradients: bool, unpacked: bool = False) -> dict[str, Any]:
    """Return {losses, gradients: [{parameter: flat tensor}] a step, weights} of the run's steps.

    ``unpacked``: each document of a sequence is a row of its own, padded behind.
    """
    import numpy as np
    import torch

    parts = build(config, Place())
    assert parts.source is not None
    model, size, steps = parts.model, config.batch.size, config.length.steps or 0
    optimizer = _optimizer(config, model)
    found: dict[str, Any] = {"losses": [], "gradients": []}
    for step in range(steps):
        batch = parts.source.batch(np.arange(step * size, (step + 1) * size))
        if unpacked:
            batch = documents_alone(batch)
        optimizer.zero_grad()
        loss = _loss(parts.objective, model, batch)
        loss.backward()
        found["losses"].append(float(loss.detach()))
        if gradients:
            found["gradients"].append(
                {
                    n: (torch.zeros_like(p) if p.grad is None else p.grad.clone()).reshape(-1)
                    for n, p in model.named_parameters()
                }
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.schedule, config.optimizer.lr, step, steps)
        optimizer.step()
    if gradients:
        found["weights"] = {n: p.detach().clone().reshape(-1) for n, p in model.named_parameters()}
    return found


def _loss(objective: Any, model: Any, batch: Batch) -> torch.Tensor:
    """The mean of each component over the batch, weighted."""
    counts = objective.counts(batch)
    if objective.additive:
        sums = objective.components(model, batch)
    else:
        whole = objective.represent(model, batch)
        sums = objective.components(whole, whole, 0)
    loss: torch.Tensor = sum(
        weight * sums[name] / max(1, counts[name]) for name, weight in objective.weights.items()
    )
    return loss


def _optimizer(config: RunConfig, model: Any) -> torch.optim.Optimizer:
    """torch's own, not fused, over parameters sorted by whether they decay."""
    import torch

    from trainer.engine.deepspeed import parameter_groups

    settings = config.optimizer
    groups = [g for g in parameter_groups(model, settings.weight_decay) if g["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, settings.lr, momentum=settings.momentum)
    return torch.optim.AdamW(groups, settings.lr, settings.betas, settings.eps)


def documents_alone(batch: Batch) -> Batch:
    """Cut sequences of several documents into rows of one: int64 [documents, longest] each.

    Padding lies behind a document, where causal attention does not look back from it, and counts
    nowhere (label -100).
    """
    import torch

    pieces: dict[str, list[torch.Tensor]] = {
        name: [] for name in ("input_ids", "labels", "position_ids", "segments")
    }
    for row, segments in enumerate(batch["segments"]):
        for document in torch.unique(segments[segments >= 0]).tolist():
            here = segments == document
            for name, parts in pieces.items():
                parts.append(batch[name][row][here])
    fill = {"input_ids": 0, "labels": -100, "position_ids": 0, "segments": -1}
    return {
        name: torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill[name])
        for name, parts in pieces.items()
    }
