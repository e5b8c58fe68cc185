"""A linear layer and a cross-entropy over it, a chunk of rows at a time.

Logits of n tokens and a vocabulary of V are n x V numbers, often more than all other activations
together. Here at most ``rows`` of them exist at once, forward and backward; each chunk is computed again for
the backward pass, which costs one product of [n, d] with [d, V] more. If one chunk holds all
rows, its logits are kept instead and nothing is computed twice.

Imports torch. Call these inside the forward of the module that owns the weight: under ZeRO-3 a weight
has no elements outside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

IGNORED = -100
"""Label of a token that is not counted."""

ELEMENTS = 1 << 26
"""Logits of a chunk where no number of rows is given: 256 MB in fp32."""

CACHED = 1 << 17
"""Logits that a CPU works on at once: 512 kB in fp32 (the whole loss was then twice as fast in bf16, on one
core)."""


def token_losses(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, rows: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each token -log p(label) and the log of the softmax's denominator: fp32 [...] each.

    ``hidden`` [..., d], ``weight`` [V, d] of the same type, ``labels`` int64 [...]. Both are 0, with no
    gradient, where the label is `IGNORED`. Softmax is in fp32. ``rows``: tokens whose logits exist at
    once.
    """
    flat = hidden.reshape(-1, hidden.shape[-1])
    loss, partition = _TokenLosses.apply(flat, weight, labels.reshape(-1), rows)
    return loss.view(labels.shape), partition.view(labels.shape)


def token_divergence(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    teacher: tuple[torch.Tensor, torch.Tensor],
    counted: torch.Tensor,
    temperature: float = 1.0,
    rows: int | None = None,
) -> torch.Tensor:
    """Return for each token KL(teacher || student) of both softmaxes at a temperature: fp32 [...].

    ``hidden`` [..., d] and ``weight`` [V, d] of the student; ``teacher``: the same of the teacher,
    [..., e] and [V, e], without gradient; ``counted`` bool [...]: 0 where not. The gradient reaches the
    student alone.
    """
    flat, theirs = hidden.reshape(-1, hidden.shape[-1]), teacher[0].detach()
    theirs = theirs.reshape(-1, theirs.shape[-1])
    found = _Divergence.apply(
        flat, weight, theirs, teacher[1].detach(), counted.reshape(-1), temperature, rows
    )
    return found.view(counted.shape)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        rows: int | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss, partition = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(2))
        ctx.chunks = list(_chunks(len(hidden), len(weight), rows))
        for part in ctx.chunks:
            logits = hidden[part] @ weight.T
            for some in _slices(logits):
                torch.logsumexp(logits[some].float(), -1, out=partition[part][some])
            target = labels[part].clamp(min=0)[:, None]
            loss[part] = partition[part] - logits.gather(-1, target).squeeze(-1)
        ignored = labels == IGNORED
        kept = logits if len(ctx.chunks) == 1 else None
        ctx.save_for_backward(hidden, weight, labels, partition.clone(), kept)
        return loss.masked_fill_(ignored, 0), partition.masked_fill_(ignored, 0)

    @staticmethod
    def backward(
        ctx: Any, by_loss: torch.Tensor, by_partition: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        hidden, weight, labels, partition, kept = ctx.saved_tensors
        ignored = labels == IGNORED
        by_loss = by_loss.masked_fill(ignored, 0)
        by_all = by_partition.masked_fill(ignored, 0) + by_loss
        sums = _Gradients(ctx, hidden, weight)
        for part in ctx.chunks:
            logits = kept if kept is not None else hidden[part] @ weight.T
            slope = torch.empty_like(logits)
            for rows in _slices(logits):
                some = (logits[rows] - partition[part][rows, None]).exp_()
                some.mul_(by_all[part][rows, None])
                target = labels[part][rows].clamp(min=0)[:, None]
                some.scatter_add_(1, target, -by_loss[part][rows, None])
                slope[rows] = some
            sums.add(part, slope)
        return sums.hidden, sums.weight(), None, None


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        theirs: torch.Tensor,
        teacher: torch.Tensor,
        counted: torch.Tensor,
        temperature: float,
        rows: int | None,
    ) -> torch.Tensor:
        ctx.chunks = list(_chunks(len(hidden), 2 * len(weight), rows))
        ctx.temperature = temperature
        found = hidden.new_empty(len(hidden), dtype=torch.float32)
        for part in ctx.chunks:
            ours = _log_softmax(hidden[part], weight, temperature)
            wanted = _log_softmax(theirs[part], teacher, temperature)
            found[part] = (wanted.exp() * (wanted - ours)).sum(-1)
        ctx.save_for_backward(hidden, weight, theirs, teacher, counted)
        return found.masked_fill_(~counted, 0)

    @staticmethod
    def backward(ctx: Any, by_found: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, theirs, teacher, counted = ctx.saved_tensors
        scale = by_found.masked_fill(~counted, 0) / ctx.temperature
        sums = _Gradients(ctx, hidden, weight)
        for part in ctx.chunks:
            slope = _log_softmax(hidden[part], weight, ctx.temperature).exp_()
            slope -= _log_softmax(theirs[part], teacher, ctx.temperature).exp_()
            sums.add(part, slope.mul_(scale[part, None]))
        return sums.hidden, sums.weight(), None, None, None, None, None


class _Gradients:
    """Adds up the gradients of a product with a weight, that of the weight in fp32."""

    def __init__(self, ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> None:
        self._of, self._by = hidden, weight
        self.hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        self._sum = (
            torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        )

    def add(self, part: slice, slope: torch.Tensor) -> None:
        """Count a chunk whose gradient by its logits is ``slope`` [rows, V]."""
        slope = slope.to(self._by.dtype)
        if self.hidden is not None:
            torch.mm(slope, self._by, out=self.hidden[part])
        if self._sum is not None:
            if self._by.dtype == torch.float32:
                self._sum.addmm_(slope.T, self._of[part])
            else:
                self._sum += slope.T @ self._of[part]

    def weight(self) -> torch.Tensor | None:
        """The weight's gradient, of its type."""
        return None if self._sum is None else self._sum.to(self._by.dtype)


def _chunks(total: int, vocabulary: int, rows: int | None) -> Iterator[slice]:
    size = rows or max(1, ELEMENTS // vocabulary)
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def _slices(logits: torch.Tensor) -> Iterator[slice]:
    """Rows of a chunk that a CPU's cache holds; all of them on a device."""
    rows = len(logits) if logits.is_cuda else max(1, CACHED // logits.shape[-1])
    return _chunks(len(logits), logits.shape[-1], rows)


def _logits(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (hidden @ weight.T).float()


def _log_softmax(hidden: torch.Tensor, weight: torch.Tensor, temperature: float) -> torch.Tensor:
    return (_logits(hidden, weight) / temperature).log_softmax(-1)
