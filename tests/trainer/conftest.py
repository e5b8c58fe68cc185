"""Datasets that the reader's tests share."""

from __future__ import annotations

import itertools

import pytest

from schemas.dataset import Dataset
from schemas.table_schemas import MATCHED, POOL
from tests.schemas import samples
from tests.trainer.making import made, matched_table


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    found = made(tmp_path_factory.mktemp("reader") / "pool", POOL, samples.pool(1000))
    assert len(found.shards()) > 3 and sum(s.row_groups for s in found.shards()) > 20
    return found


@pytest.fixture(scope="session")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    found = made(tmp_path_factory.mktemp("reader") / "matched", MATCHED, matched_table(600))
    groups = [
        found.read_row_group(s, g, ["image_id"])["image_id"].to_pylist()
        for s, shard in enumerate(found.shards())
        for g in range(shard.row_groups)
    ]
    cut = sum(a[-1] == b[0] for a, b in itertools.pairwise(groups))
    whole = sum(len(set(g)) == 1 for g in groups)
    assert cut > 5 and whole > 0, "the test needs images that row groups and shards cut"
    return found


@pytest.fixture
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.order.BLOCK_SHARDS", 2)
