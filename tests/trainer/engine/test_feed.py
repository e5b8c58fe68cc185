"""Position is a fact: 200 interruptions with other ranks and loaders lose and repeat no sample."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.dataset import Dataset
from tests.trainer import making
from tests.trainer.engine import tiny
from trainer.engine.feed import batches
from trainer.protocols import Batch, Positions
from trainer.reader import Reader

IMAGES = 300
STEPS = 60


class Rows:
    """Row numbers of a committed dataset through the trainer's reader, epoch after epoch."""

    def __init__(self, dataset: Dataset) -> None:
        self.digest = dataset.manifest.digest
        self._readers = [Reader(dataset, seed=3, epoch=e, window=64) for e in range(4)]
        self._rows = len(self._readers[0])
        self._lock = threading.Lock()
        self._random = random.Random(5)

    def samples(self, epochs: float) -> int:
        return int(self._rows * epochs)

    def batch(self, positions: Positions) -> Batch:
        with self._lock:
            epochs = positions // self._rows
            found = [
                pair for e in np.unique(epochs) for pair in self._pairs(e, positions[epochs == e])
            ]
            pause = self._random.random() / 3000
        time.sleep(pause)  # so that threads overtake each other
        return {"pair": torch.tensor(found), "position": torch.from_numpy(positions.copy())}

    def places(self, positions: Positions) -> list[dict[str, Any]]:
        return [{"epoch": int(k) // self._rows, "ids": {}} for k in positions]

    def _pairs(self, epoch: int, positions: Positions) -> list[int]:
        table: pa.Table = self._readers[epoch].take(positions - epoch * self._rows)
        return [int.from_bytes(pair[:7], "big") for pair in table["pair_id"].to_pylist()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    root = tmp_path_factory.mktemp("feed") / "matched"
    return Rows(making.made(root, making.MATCHED, making.matched_table(IMAGES)))


@pytest.mark.slow
def test_two_hundred_interruptions_lose_and_repeat_no_sample(source: Rows) -> None:
    choose = random.Random(11)
    others = threading.active_count()  # of tests before this one
    size = 48
    whole = tiny.run_config("unused", batch={"size": size}, length={"steps": STEPS})
    wanted = [part.batches[0]["pair"].tolist() for part in batches(source, whole, 0, 1)]
    assert source.samples(2) < STEPS * size < source.samples(4)  # epochs end in the middle of steps
    interruptions = longest = 0
    seen: list[list[int]] = []
    while interruptions < 200:
        start = len(seen) if len(seen) < STEPS else 0
        seen = seen if start else []
        ranks = choose.choice([1, 2, 3, 4, 6])
        micro = choose.choice([2, 4])
        settings = {"size": size, "micro": micro}
        stop = start + choose.randint(0, 3)  # that many steps are made before the kill
        parts: list[list[list[int]]] = []
        for rank in range(ranks):
            loaders = choose.choice([0, 1, 3])
            config = whole.model_copy(
                update={
                    "batch": type(whole.batch).model_validate(settings),
                    "loaders": loaders,
                }
            )
            feeds = batches(source, config, rank, ranks, start)
            mine: list[list[int]] = []
            for part in feeds:
                if part.step >= stop:
                    break
                assert part.step == start + len(mine)
                assert {len(batch["pair"]) for batch in part.batches} == {micro}
                at = np.concatenate(part.positions).tolist()
                assert at == [k for batch in part.batches for k in batch["position"].tolist()]
                mine.append([k for batch in part.batches for k in batch["pair"].tolist()])
            feeds.close()  # type: ignore[attr-defined]
            parts.append(mine)
        seen += [[k for rank in rows for k in rank] for rows in zip(*parts, strict=True)]
        assert seen == wanted[: len(seen)]
        longest = max(longest, len(seen))
        interruptions += 1
    assert longest == STEPS  # runs came to their end in between
    assert threading.active_count() < others + 20  # interrupted loaders end


def test_a_fault_of_a_loader_reaches_the_loop_at_its_step(source: Rows) -> None:
    class Faulty(Rows):
        def batch(self, positions: Positions) -> Batch:
            if 50 in positions:
                raise ValueError("sample 50")
            return source.batch(positions)

    faulty = Faulty.__new__(Faulty)
    config = tiny.run_config("unused", batch={"size": 16}, length={"steps": 9}, loaders=2)
    seen = []
    with pytest.raises(ValueError, match="sample 50"):
        for part in batches(faulty, config, 0, 1):
            seen.append(part.step)
    assert seen == [0, 1, 2]


def test_loaders_read_ahead_and_not_further(source: Rows) -> None:
    asked: list[int] = []

    class Counting(Rows):
        def batch(self, positions: Positions) -> Batch:
            asked.append(int(positions[0]))
            return {"position": torch.from_numpy(positions.copy())}

    counting = Counting.__new__(Counting)
    settings = {"size": 16, "micro": 4}
    config = tiny.run_config("unused", batch=settings, length={"steps": 90}, loaders=3)
    feeds = batches(counting, config, 0, 1)
    next(feeds)
    time.sleep(0.05)
    assert len(asked) == 8  # two steps of four micro-batches: at least six are wanted ahead
    feeds.close()  # type: ignore[attr-defined]
