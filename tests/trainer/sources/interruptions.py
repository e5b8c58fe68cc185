"""Runs on token data that are interrupted at random: ``python -m tests.trainer.sources.interruptions``.

A run is stopped after a few steps, and goes on with another number of ranks, other micro-batches and
other loader threads, on data that is opened anew; 200 times for each way to pack. What all ranks are fed
is compared with sequences made in plain Python, and every token of the data is another one, so that a
lost or repeated sample shows. Prints one JSON object a way.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from schemas.dataset import Dataset
from tests.trainer.packing import making, plain
from trainer.engine.feed import feed
from trainer.engine.sizes import Sizes
from trainer.sources.tokens import Settings, Tokens

T, BATCH, STEPS = 32, 24, 40
WAYS: dict[str, dict[str, Any]] = {
    "concatenate": {},
    "concatenate, documents see one another": {"document_mask": False},
    "best_fit": {"packing": "best_fit"},
    "mixture": {"weights": (0.7, 0.3)},
    "mixture of best_fit with a schedule": {
        "packing": "best_fit",
        "weights": (3, 1),
        "schedule": [{"tokens": 300 * T, "weights": [1, 2]}],
    },
}
Position = tuple[str, int, int]  # dataset, shard, row


def datasets(folder: Path) -> list[Dataset]:
    """Two datasets in which no token comes twice."""
    random_ = np.random.default_rng(1)
    lengths = [*random_.integers(0, 40, 220).tolist(), 0, 1, 200, 33, 32, 31]
    texts = making.texts(lengths, validation=5, first=1)
    other = making.texts(lengths[:150], first=1 + sum(lengths))
    return [making.made(folder / "first", texts), making.made(folder / "second", other)]


def opened(data: list[Dataset], way: dict[str, Any]) -> Tokens:
    """The source of a way, as a process opens it."""
    given: dict[str, Any] = {"sequence_length": T, "window": 2, **way}
    if weights := given.pop("weights", None):
        given["mix"] = [
            {"path": one.storage.url, "weight": w} for one, w in zip(data, weights, strict=True)
        ]
    else:
        given["path"] = data[0].storage.url
    return Tokens(Settings(**given), seed=3)


def expected(data: list[Dataset], way: dict[str, Any]) -> list[plain.Sequence]:
    """The samples of a whole run in plain Python.

    Taken from the source are only the order of documents and, of best fit, which pieces go together.
    """
    source, count = opened(data, way), BATCH * STEPS
    tokens: dict[Position, list[int]] = {}
    for one in data:
        rows = [(s, r) for s, shard in enumerate(one.shards()) for r in range(shard.rows)]
        for at, (_, ids) in zip(rows, plain.corpus(one), strict=True):
            tokens[one.storage.url, *at] = ids
    places = source.places(np.arange(count))
    mask = way.get("document_mask", True)
    found: list[plain.Sequence | None] = [None] * count
    for one in data:
        url = one.storage.url
        mine = [k for k, place in enumerate(places) if place.get("dataset", url) == url]
        if "weights" not in way and one is not data[0]:
            continue
        if way.get("packing") == "best_fit":
            for k in mine:
                found[k] = _whole(tokens, url, places[k]["parts"], mask)
            continue
        alone = opened([one], {k: v for k, v in way.items() if k != "weights"})
        made: list[plain.Sequence] = []
        for epoch in range(-(-len(mine) // alone.samples(1))):
            at = np.arange(alone.samples(epoch), alone.samples(epoch + 1))
            parts = [part for place in alone.places(at) for part in place["parts"]]
            order = dict.fromkeys((url, part["shard"], part["row"]) for part in parts)
            made += plain.concatenated([tokens[document] for document in order], T, mask)
        for k, sequence in zip(mine, made, strict=False):
            found[k] = sequence
    assert None not in found
    return found  # type: ignore[return-value]


def _whole(
    tokens: dict[Position, list[int]], url: str, parts: list[dict[str, Any]], mask: bool
) -> plain.Sequence:
    """A sequence of best fit: whole documents, or pieces of T tokens of longer ones, and padding."""
    pieces, after = [], None
    for part in parts:
        document = tokens[url, part["shard"], part["row"]]
        assert part["start"] % T == 0
        end = min(part["start"] + T, len(document))
        pieces.append(document[part["start"] : end])
        after = document[end] if end < len(document) else None
    return plain.sequence(pieces, after, T, mask)


def interrupted(
    data: list[Dataset], way: dict[str, Any], count: int, seed: int = 0
) -> dict[str, Any]:
    """Interrupt a run `count` times, beginning anew after its end; figures and ``faults``."""
    wanted, choose = expected(data, way), random.Random(seed)
    faults: list[str] = []
    ranks_seen, ends, step, samples = set(), 0, 0, 0
    for number in range(count):
        ranks = choose.choice([1, 2, 3, 4, 6])
        part = BATCH // ranks
        micro = choose.choice([n for n in (1, 2, 3, 4, 6, 8, 24) if part % n == 0])
        of = Sizes(BATCH, ranks, part, micro, part // micro, STEPS)
        stop = min(STEPS, step + choose.randint(0, 5))
        ranks_seen.add(ranks)
        fed: dict[int, list[plain.Sequence]] = {}
        positions: dict[int, list[int]] = {}
        for rank in range(ranks):
            loaders = choose.choice([0, 1, 3])
            feeds = feed(opened(data, way), of, rank, loaders, step)
            for one in feeds:
                if one.step >= stop:
                    break  # the loaders have read on: what they have is lost with the process
                fed.setdefault(one.step, []).extend(s for b in one.batches for s in _lists(b))
                at = positions.setdefault(one.step, [])
                at.extend(k for p in one.positions for k in p.tolist())
            feeds.close()
        what = f"interruption {number} ({ranks} ranks, steps {step} to {stop})"
        if sorted(fed) != list(range(step, stop)):
            faults.append(f"{what}: steps {sorted(fed)}")
        for made in sorted(fed):
            first, end = made * BATCH, (made + 1) * BATCH
            if positions[made] != list(range(first, end)):
                faults.append(f"{what}: step {made} is of other positions")
            if fed[made] != wanted[first:end]:
                faults.append(f"{what}: step {made} is another global batch")
            samples += len(fed[made])
        step = stop
        if step == STEPS:
            ends, step = ends + 1, 0
    return {
        "interruptions": count,
        "runs_to_the_end": ends,
        "ranks": sorted(ranks_seen),
        "samples_compared": samples,
        "epochs": [round(passes, 2) for passes in opened(data, way).passes(BATCH * STEPS)],
        "faults": faults,
    }


def _lists(batch: dict[str, Any]) -> list[plain.Sequence]:
    """Samples as lists; padding has no position."""
    columns = {name: tensor.tolist() for name, tensor in batch.items()}
    found = []
    for row in zip(*columns.values(), strict=True):
        one = dict(zip(columns, row, strict=True))
        used = T - one["segments"].count(-1)
        found.append(plain.Sequence(**one | {"position_ids": one["position_ids"][:used]}))
    return found


def main(count: int) -> int:
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEADRACE_CACHE"] = f"{folder}/cache"
        data = datasets(Path(folder))
        for name, way in WAYS.items():
            begun = time.monotonic()
            found = interrupted(data, way, count)
            faults += len(found["faults"])
            seconds = round(time.monotonic() - begun, 1)
            print(json.dumps({"case": name, **found, "seconds": seconds}), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:] or ["200"])))
