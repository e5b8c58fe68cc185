"""KL divergence of a student from a teacher of which the likeliest tokens are known, and the rest as one.

For a teacher q and a student p at one temperature, and the k tokens K that are known of q, both are seen
as distributions over k + 1 outcomes, the last of which, the tail, is any token not in K:

    sum over K of q_i (log q_i - log p_i) + q_tail (log q_tail - log p_tail)

It is at most the divergence over all tokens, and equal to it if K is the vocabulary: then the tail is
empty. Without a tail's outcome a student could move what it likes to the tokens outside K.

Imports torch. Call it inside the forward of the module that owns the weight, as
`trainer.objectives.linear_cross_entropy` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from trainer.objectives import linear_cross_entropy as whole


@dataclass(frozen=True)
class TopK:
    """Of each token: ``ids`` [..., k], any integers; ``log_probs`` fp32 [..., k] at ``temperature``, and
    ``tail`` fp32 [...], the log of what all others have together, -inf if it is nothing."""

    ids: torch.Tensor
    log_probs: torch.Tensor
    tail: torch.Tensor
    temperature: float = 1.0

    @classmethod
    def of(cls, log_probs: torch.Tensor, k: int, temperature: float = 1.0) -> TopK:
        """Return the k likeliest of log-probabilities [..., V] that are at ``temperature`` already."""
        top = log_probs.topk(k)
        tail = log_probs.scatter(-1, top.indices, -torch.inf).logsumexp(-1)
        return cls(top.indices, top.values, tail, temperature)


def top_k_divergence(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    teacher: TopK,
    counted: torch.Tensor,
    rows: int | None = None,
) -> torch.Tensor:
    """Return for each token the divergence of the module's formula: fp32 [...].

    ``hidden`` [..., d] and ``weight`` [V, d] of the student; ``counted`` bool [...]: 0 where not.
    ``rows``: tokens whose logits exist at once.
    """
    flat = hidden.reshape(-1, hidden.shape[-1])
    k = teacher.ids.shape[-1]
    found = _TopKDivergence.apply(
        flat,
        weight,
        teacher.ids.reshape(-1, k),
        teacher.log_probs.reshape(-1, k),
        teacher.tail.reshape(-1),
        counted.reshape(-1),
        teacher.temperature,
        rows,
    )
    return found.view(counted.shape)


class _TopKDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        ids: torch.Tensor,
        log_probs: torch.Tensor,
        tail: torch.Tensor,
        counted: torch.Tensor,
        temperature: float,
        rows: int | None,
    ) -> torch.Tensor:
        ctx.chunks = list(whole._chunks(len(hidden), 2 * len(weight), rows))
        ctx.temperature = temperature
        found = hidden.new_empty(len(hidden), dtype=torch.float32)
        for part in ctx.chunks:
            ours = whole._log_softmax(hidden[part], weight, temperature)
            here, wanted, rest = ids[part].long(), log_probs[part], tail[part]
            inside = (wanted.exp() * (wanted - ours.gather(1, here))).sum(-1)
            outside = rest.exp() * (rest - ours.scatter_(1, here, -torch.inf).logsumexp(-1))
            found[part] = inside + outside.masked_fill(rest == -torch.inf, 0)
        ctx.save_for_backward(hidden, weight, ids, log_probs, tail, counted)
        return found.masked_fill_(~counted, 0)

    @staticmethod
    def backward(ctx: Any, by_found: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, ids, log_probs, tail, counted = ctx.saved_tensors
        scale = by_found.masked_fill(~counted, 0) / ctx.temperature
        sums = whole._Gradients(ctx, hidden, weight)
        for part in ctx.chunks:
            # By the logits z: p_i - q_i of a known token, p_j (1 - q_tail / p_tail) of another.
            ours = whole._log_softmax(hidden[part], weight, ctx.temperature)
            here, rest = ids[part].long(), tail[part]
            known = ours.gather(1, here).exp_() - log_probs[part].exp()
            ours.scatter_(1, here, -torch.inf)
            share = (rest - ours.logsumexp(-1)).exp().masked_fill(rest == -torch.inf, 0)
            slope = ours.exp_().mul_((1 - share)[:, None]).scatter_(1, here, known)
            sums.add(part, slope.mul_(scale[part, None]))
        return sums.hidden, sums.weight(), *(None,) * 6
