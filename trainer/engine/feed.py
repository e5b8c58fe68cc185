"""What each step gets: step s is the samples at positions [s * B, (s + 1) * B) of the source.

Ranks take contiguous parts of it, and micro-batches contiguous parts of a rank's, so the global
batch in order is the same for any number of ranks, micro-batches and loader threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from trainer.config import RunConfig
from trainer.engine.sizes import Sizes, sizes
from trainer.protocols import Batch, Positions, Source, chunked, rows_of

_AHEAD = 2
"""Micro-batches that each loader thread reads ahead."""


@dataclass(frozen=True)
class Feed:
    """A rank's part of one step: int64[n] positions of each micro-batch, and the micro-batches."""

    step: int
    positions: list[Positions]
    batches: list[Batch]


def step_positions(step: int, size: int) -> Positions:
    """Return the positions of a step's global batch of `size` samples: int64[size]."""
    return np.arange(step * size, (step + 1) * size, dtype=np.int64)


def batches(
    source: Source, config: RunConfig, rank: int, ranks: int, start: int = 0
) -> Iterator[Feed]:
    """Yield a rank's part of each step from step `start` to the end of the run.

    ``config.loaders`` threads call ``source.batch`` ahead of the loop, each for one micro-batch;
    with 0 the loop itself does. Only time depends on it. Errors: those of `sizes` and the source.
    """
    return feed(source, sizes(config, ranks, source), rank, config.loaders, start)


def feed(
    source: Source,
    of: Sizes,
    rank: int,
    loaders: int,
    start: int,
    prepare: Callable[[Batch], Batch] | None = None,
) -> Generator[Feed]:
    """`batches` with sizes known; `prepare` is applied to each micro-batch by its loader."""

    def load(positions: Positions) -> Batch:
        batch = source.batch(positions)
        return prepare(batch) if prepare else batch

    steps = (
        (step, chunked(rows_of(step_positions(step, of.batch), rank, of.ranks), of.micro))
        for step in range(start, of.steps)
    )
    if not loaders:
        for step, parts in steps:
            yield Feed(step, list(parts), [load(part) for part in parts])
        return
    pool = ThreadPoolExecutor(loaders, thread_name_prefix="loader")
    waiting: deque[tuple[int, list[Positions], list[Future[Batch]]]] = deque()
    # Whole steps are queued: enough for every thread, and always the one after the current.
    depth = max(2, -(-_AHEAD * loaders // of.micro_batches))
    try:
        for step, parts in steps:
            waiting.append((step, list(parts), [pool.submit(load, part) for part in parts]))
            if len(waiting) == depth:
                yield _ready(waiting.popleft())
        while waiting:
            yield _ready(waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ready(item: tuple[int, list[Positions], list[Future[Batch]]]) -> Feed:
    step, positions, futures = item
    return Feed(step, positions, [future.result() for future in futures])
