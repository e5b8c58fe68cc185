"""The chat template that a run's conversations were rendered by, for the tokenizer of its export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.dataset import Dataset
from schemas.manifest import Manifest
from trainer.ancestors import ancestors


@dataclass(frozen=True)
class Chat:
    """A template, and the special tokens that it may name: {"bos_token": "<s>", ...}."""

    template: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    def named(self, tokenizer: Any) -> dict[str, str]:
        """Return those special tokens that a tokenizer has; others would widen its vocabulary."""
        return {
            name: token
            for name, token in self.tokens.items()
            if token and tokenizer.token_to_id(token) is not None
        }


def chat_of(datasets: Sequence[Dataset]) -> tuple[Chat | None, str]:
    """Return the template of datasets of tokens, or None and why an export has none.

    The reason is empty for data without conversations. Parts of a mixture that were rendered by other
    templates than one have none in common.
    """
    found: list[Chat] = []
    for dataset in datasets:
        rendered = False
        for manifest in _lineage(dataset):
            rendered = rendered or bool(manifest.config.get("parse_special"))
            if (chat := _chat(manifest)) is not None:
                found += [chat] if chat not in found else []
                break
        else:
            if rendered:
                return None, (
                    "The data was rendered by a chat template that is no longer at hand, so the tokenizer "
                    "here has none."
                )
    if len(found) > 1:
        return None, (
            f"The data was rendered by {len(found)} chat templates, so the tokenizer here has none."
        )
    return (found[0] if found else None), ""


def _lineage(dataset: Dataset) -> Iterator[Manifest]:
    yield dataset.manifest
    for one in ancestors(dataset):
        if one.dataset is not None:
            yield one.dataset.manifest


def _chat(manifest: Manifest) -> Chat | None:
    """What `dataflows run tokens` notes beside its datasets: see its recipe."""
    runtime = manifest.run.get("runtime")
    template = runtime.get("chat_template") if isinstance(runtime, Mapping) else None
    if not isinstance(template, str) or not template:
        return None
    assert isinstance(runtime, Mapping)
    tokens = runtime.get("chat_tokens") or manifest.config.get("chat", {}).get("tokens", {})
    return Chat(template, dict(tokens))
