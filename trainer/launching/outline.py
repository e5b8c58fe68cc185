"""A run's parts without its weights: what a plan and a dry run can know without training anything."""

from __future__ import annotations

from trainer import data_tokenizer
from trainer.config import Length, RunConfig, part
from trainer.engine.sizes import Sizes, sizes
from trainer.protocols import Parts


def check_batch(config: RunConfig, ranks: int) -> None:
    """Raise UsageError for a batch that does not split over ranks. Opens no data."""
    if config.length.epochs is not None:
        enough = Length(steps=max(1, config.schedule.warmup), samples=None, epochs=None)
        config = config.model_copy(update={"length": enough})
    sizes(config, ranks)


def sizes_of(config: RunConfig, ranks: int, parts: Parts | None = None) -> Sizes:
    """All sizes of a run; the data is opened if the length is given in epochs."""
    if config.length.epochs is None:
        return sizes(config, ranks)
    return sizes(config, ranks, (parts or outline(config)).source)


def outline(config: RunConfig) -> Parts:
    """Return a run's parts, the model on the meta device: shapes, no weights, no seconds.

    A checkpoint (``model.init_from``) is read, for its shapes are in it. A tokenizer that the run
    would train is stood in for by one of the size asked for. Errors: those of the builders.
    """
    import torch

    parts = Parts(tokenizer=_tokenizer(config))
    for kind, name in (("model", "model"), ("data", "source"), ("objective", "objective")):
        module, settings = part(kind, getattr(config, kind))
        bare = kind == "model" and not config.model.get("init_from")
        with torch.device("meta" if bare else "cpu"):
            built = module.build(settings, config, parts)
        parts = Parts(**{**vars(parts), name: built})
    return parts


def _tokenizer(config: RunConfig) -> object:
    from schemas.storage import storage
    from trainer import tokenizer

    if data_tokenizer.named(config):
        return data_tokenizer.parse(*data_tokenizer.read(config))
    if config.tokenizer is None and not config.model.get("init_from"):
        return None
    wanted = tokenizer.check(config)
    output = storage(config.output)
    if output.exists(tokenizer.FILE):
        return tokenizer.parse(output.read_bytes(tokenizer.FILE), config.output)
    if isinstance(wanted, str):
        return tokenizer.load(wanted)
    found = tokenizer.train(["a"], wanted.vocabulary)
    left = wanted.vocabulary - found.get_vocab_size()
    found.add_tokens([f"<unused {i}>" for i in range(left)])
    return found
