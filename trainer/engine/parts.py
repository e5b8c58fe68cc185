"""The parts of a run on a rank."""

from __future__ import annotations

from trainer import data_tokenizer
from trainer.config import RunConfig, part
from trainer.protocols import Parts, Place


def build(config: RunConfig, place: Place) -> Parts:
    """Build a run's parts in their order; every rank starts from the same random weights."""
    import torch

    parts = Parts()
    if data_tokenizer.named(config):
        parts = Parts(tokenizer=data_tokenizer.for_run(config, place))
    elif config.tokenizer is not None or config.model.get("init_from"):
        from trainer import tokenizer

        parts = Parts(tokenizer=tokenizer.for_run(config, place))
    torch.manual_seed(config.seed)
    for kind, name in (("model", "model"), ("data", "source"), ("objective", "objective")):
        module, settings = part(kind, getattr(config, kind))
        parts = Parts(**{**vars(parts), name: module.build(settings, config, parts)})
    parts.model.train()
    return parts
