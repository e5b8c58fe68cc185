"""Chunked linear layers with cross-entropy and divergence, against torch's own on whole logits."""

from __future__ import annotations

import gc

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from trainer.objectives import linear_cross_entropy
from trainer.objectives.linear_cross_entropy import token_divergence, token_losses

LABELS = torch.tensor([[3, -100, 0, 49, 7], [1, 1, -100, 12, 30]])


def leaves(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    found = [torch.randn(shape, generator=random, dtype=torch.float32) for shape in shapes]
    return [tensor.requires_grad_() for tensor in found]


@pytest.mark.parametrize("rows", [None, 1, 3, 10, 64])
def test_values_and_gradients_are_those_of_whole_logits(rows: int | None) -> None:
    hidden, weight = leaves((2, 5, 16), (50, 16))
    loss, partition = token_losses(hidden, weight, LABELS, rows)
    # Uneven weights of tokens: the gradient of each output is its own.
    uneven = torch.linspace(-1, 2, 10).view(2, 5)
    ((loss * uneven).sum() + 0.1 * (partition.square() * uneven).sum()).backward()
    mine = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    logits = hidden @ weight.T
    plain = cross_entropy(logits.flatten(0, 1), LABELS.flatten(), reduction="none").view(2, 5)
    whole = logits.logsumexp(-1) * (LABELS >= 0)
    ((plain * uneven).sum() + 0.1 * (whole.square() * uneven).sum()).backward()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(partition, whole)
    torch.testing.assert_close(mine[0], hidden.grad)
    torch.testing.assert_close(mine[1], weight.grad)


@pytest.mark.parametrize("rows", [None, 3])
def test_divergence_is_torchs_and_reaches_the_student_alone(rows: int | None) -> None:
    hidden, weight, states, teacher = leaves((2, 5, 16), (50, 16), (2, 5, 24), (50, 24))
    counted, temperature = LABELS >= 0, 2.5
    found = token_divergence(hidden, weight, (states, teacher), counted, temperature, rows)
    (found * torch.arange(10.0).view(2, 5)).sum().backward()
    assert states.grad is None and teacher.grad is None
    mine = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    student = (hidden @ weight.T / temperature).log_softmax(-1)
    wanted = (states @ teacher.T / temperature).log_softmax(-1).detach()
    plain = kl_div(student, wanted, reduction="none", log_target=True).sum(-1) * counted
    (plain * torch.arange(10.0).view(2, 5)).sum().backward()
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(mine[0], hidden.grad)
    torch.testing.assert_close(mine[1], weight.grad)


def test_a_weights_gradient_is_added_up_in_fp32() -> None:
    """bf16, in 64 chunks: as near to the exact gradient as one product is."""
    hidden, weight = (t.detach().bfloat16().requires_grad_() for t in leaves((512, 32), (64, 32)))
    labels = torch.randint(0, 64, (512,), generator=torch.Generator().manual_seed(1))
    gradients = []
    for rows in (8, None):
        weight.grad = None
        token_losses(hidden, weight, labels, rows)[0].sum().backward()
        assert weight.grad is not None
        gradients.append(weight.grad.double())
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    cross_entropy(exact[0] @ exact[1].T, labels, reduction="sum").backward()
    assert exact[1].grad is not None
    errors = [(g - exact[1].grad).norm() / exact[1].grad.norm() for g in gradients]
    assert errors[0] < 1.2 * errors[1] < 0.02


def test_logits_of_all_tokens_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor made, forward and backward, is a chunk of the logits."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    hidden, weight = leaves((256, 8), (1000, 8))
    labels = torch.arange(256)
    monkeypatch.setattr(linear_cross_entropy, "ELEMENTS", 32 * 1000)
    with Sizes():
        token_losses(hidden, weight, labels)[0].sum().backward()
    gc.collect()
    assert largest == 32 * 1000


def test_no_gradient_is_computed_for_a_frozen_weight() -> None:
    hidden, weight = leaves((4, 8), (20, 8))
    token_losses(hidden, weight.detach(), torch.arange(4), 2)[0].sum().backward()
    assert hidden.grad is not None and weight.grad is None
