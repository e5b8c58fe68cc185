"""The divergence over k known tokens and the rest, against torch's own over k + 1 outcomes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import kl_div

from trainer.objectives.linear_cross_entropy import token_divergence
from trainer.objectives.top_k_divergence import TopK, top_k_divergence

TOKENS, WIDTH, VOCABULARY = 7, 5, 11


def numbers() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, the student's weight, the teacher's logits, and which tokens count."""
    random = torch.Generator().manual_seed(1)
    hidden, weight = (torch.randn(n, WIDTH, generator=random) for n in (TOKENS, VOCABULARY))
    logits = 2 * torch.randn(TOKENS, VOCABULARY, generator=random)
    return hidden.requires_grad_(), weight.requires_grad_(), logits, torch.arange(TOKENS) % 3 != 1


def by_hand(
    hidden: torch.Tensor, weight: torch.Tensor, logits: torch.Tensor, k: int, temperature: float
) -> torch.Tensor:
    """Probabilities of k + 1 outcomes, made plainly; the last is left out where k is everything."""
    theirs = (logits / temperature).softmax(-1)
    ours = (hidden @ weight.T / temperature).softmax(-1)
    top = theirs.argsort(-1, descending=True)[:, :k]
    two = []
    for one in (theirs, ours):
        known = one.gather(-1, top)
        rest = [1 - known.sum(-1, keepdim=True)] if k < VOCABULARY else []
        two.append(torch.cat([known, *rest], -1))
    return kl_div(two[1].log(), two[0], reduction="none").sum(-1)


@pytest.mark.parametrize("k", [1, 4, VOCABULARY])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("rows", [None, 3])
def test_value_and_gradient(k: int, temperature: float, rows: int | None) -> None:
    hidden, weight, logits, counted = numbers()
    teacher = TopK.of((logits / temperature).log_softmax(-1), k, temperature)
    found = top_k_divergence(hidden, weight, teacher, counted, rows)
    wanted = by_hand(hidden, weight, logits, k, temperature) * counted
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    scale = torch.arange(TOKENS) + 1.0
    ours = torch.autograd.grad((found * scale).sum(), (hidden, weight))
    theirs = torch.autograd.grad((wanted * scale).sum(), (hidden, weight))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_with_the_whole_vocabulary_it_is_the_live_teachers() -> None:
    hidden, weight, _, counted = numbers()
    states, theirs = torch.randn(TOKENS, 3), torch.randn(VOCABULARY, 3)
    live = token_divergence(hidden, weight, (states, theirs), counted, 2.0)
    teacher = TopK.of((states @ theirs.T / 2).log_softmax(-1), VOCABULARY, 2.0)
    torch.testing.assert_close(top_k_divergence(hidden, weight, teacher, counted), live)


def test_more_known_tokens_say_more() -> None:
    hidden, weight, logits, counted = numbers()
    found = [
        top_k_divergence(hidden, weight, TopK.of(logits.log_softmax(-1), k), counted).sum().item()
        for k in range(1, VOCABULARY + 1)
    ]
    assert found == sorted(found)
    assert found[0] < 0.9 * found[-1]
