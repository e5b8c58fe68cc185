"""Interrupted runs on token data; the module itself interrupts each kind 200 times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from schemas.dataset import Dataset
from tests.trainer.sources import interruptions
from trainer.sources.tokens import Tokens


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Dataset]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield interruptions.datasets(tmp_path_factory.mktemp("data"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["concatenate", "best_fit", "mixture of best_fit with a schedule"])
def test_no_sample_is_lost_or_repeated(data: list[Dataset], name: str) -> None:
    found = interruptions.interrupted(data, interruptions.WAYS[name], 40)
    assert found["faults"] == []
    assert found["runs_to_the_end"] >= 1 and found["samples_compared"] > 1000
    assert min(found["epochs"]) > 2


def test_a_sample_at_another_place_is_found(
    data: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Tokens.batch
    monkeypatch.setattr(Tokens, "batch", lambda self, at: right(self, at ^ (at == 50)))
    (fault,) = interruptions.interrupted(data, {}, 3, seed=2)["faults"]
    assert "step 2 is another global batch" in fault
