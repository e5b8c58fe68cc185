"""Operations that training a decoder needs: what MFU divides by a device's peak (arXiv:2204.02311, app. B).

Counted are products of matrices, two operations for each multiplication: every token by every weight of a
linear layer, the output layer included, and in attention each token by the tokens that it sees, which are
those before it in its own document, and itself. The backward pass costs twice the forward pass. What is
computed again (activation checkpointing, chunks of logits), padding, norms and look-ups are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.protocols import Batch

_PASSES = 3  # forward, and twice that backward
_LINEAR = ("Linear", "Conv1D", "Head")


@dataclass(frozen=True)
class Operations:
    """Of one forward pass: ``token``, for each token; ``pair``, for each token that one sees."""

    token: int
    pair: int

    def training(self, tokens: int, pairs: int) -> int:
        """Operations of forward and backward over so many tokens that see so many, in all."""
        return _PASSES * (self.token * tokens + self.pair * pairs)


def operations(model: Any) -> Operations | None:
    """Return those of a Llama or GPT-2 of `transformers`, on any device; None for another model."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "hidden"):
        return None
    weights = 0
    for module in model.modules():
        if type(module).__name__ in _LINEAR:
            shape = getattr(module.weight, "ds_shape", module.weight.shape)  # whole under ZeRO-3
            weights += int(shape[0]) * int(shape[1])
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Operations(2 * weights, 4 * heads * width * int(config.num_hidden_layers))


def seen(batch: Batch) -> tuple[int, int]:
    """Return the tokens of a batch without padding, and the tokens that they see, in all.

    ``position_ids`` [n, T] begin again where a document does, so a token at position p sees p + 1;
    ``segments`` [n, T] are -1 for padding.
    """
    positions = batch["position_ids"].numpy()
    if "segments" not in batch:
        return positions.size, int(positions.sum()) + positions.size
    real = batch["segments"].numpy() >= 0
    tokens = int(real.sum())
    return tokens, int(positions.sum(where=real)) + tokens
