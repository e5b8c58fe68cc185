"""The language objective: a worked example, its counts, and ids that are no tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import InputError, UsageError
from tests.trainer.objectives import words
from trainer.config import RunConfig
from trainer.engine.parts import build
from trainer.protocols import Parts, Place


@pytest.fixture(autouse=True)
def _words() -> None:
    words.register()


def parts(**changes: Any) -> tuple[RunConfig, Parts]:
    config = words.run_config("unused", **changes)
    return config, build(config, Place())


def test_a_worked_example() -> None:
    """All logits 0: each counted token costs ln 64, its log-denominator is ln 64 too."""
    _, of = parts(objective={"name": "language", "z_loss": 0.5})
    with torch.no_grad():
        of.model.get_input_embeddings().weight.zero_()
    batch = {
        "input_ids": torch.tensor([[1, 2, 3, 4]]),
        "labels": torch.tensor([[2, -100, 4, 5]]),
        "position_ids": torch.tensor([[0, 1, 0, 1]]),
    }
    objective: Any = of.objective
    assert objective.counts(batch) == {"token": 3, "z_loss": 3}
    assert objective.weights == {"token": 1.0, "z_loss": 0.5}
    found = objective.components(of.model, batch)
    assert found["token"].item() == pytest.approx(3 * math.log(64))
    assert found["z_loss"].item() == pytest.approx(3 * math.log(64) ** 2)


def test_counts_are_the_labels_that_count() -> None:
    _, of = parts()
    assert of.source is not None
    batch = of.source.batch(np.arange(10))
    counts = of.objective.counts(batch)  # type: ignore[union-attr]
    assert counts == {"token": sum(label != -100 for label in batch["labels"].flatten().tolist())}
    assert 0 < counts["token"] < batch["labels"].numel() - 20


@pytest.mark.parametrize("bad", [64, 70_000, -3])
def test_an_id_that_is_no_token_is_named(bad: int) -> None:
    _, of = parts(data={"name": "words", "bad": bad})
    assert of.source is not None
    with pytest.raises(InputError, match=rf"input_ids has token {bad}, .* tokens 0 to 63"):
        of.objective.counts(of.source.batch(np.arange(2)))  # type: ignore[union-attr]


def test_documents_see_one_another_only_where_the_source_says_so() -> None:
    """Without a document mask the loss is the library's over the whole sequence."""
    _, of = parts(data={"name": "words", "document_mask": False})
    assert of.source is not None
    batch = of.source.batch(np.arange(1, 4))
    ours = of.objective.components(of.model, batch)["token"]  # type: ignore[union-attr]
    theirs = of.model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss
    torch.testing.assert_close(ours / (3 * 23), theirs)


def test_sequences_longer_than_the_positions_are_refused() -> None:
    with pytest.raises(UsageError, match="24 tokens is longer than the 16 positions"):
        parts(model={"name": "decoder", "size": "tiny", "shape": words.SHAPE, "context": 16})


def test_a_model_without_a_language_is_refused() -> None:
    from tests.trainer.engine import tiny

    tiny.register()
    with pytest.raises(UsageError, match=r"model\.name=decoder"):
        parts(model={"name": "tiny"})
