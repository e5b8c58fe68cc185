"""What the engine knows of models, data and objectives: it knows nothing else of any algorithm.

A batch is a dict of CPU tensors whose first dimension counts samples. A component of a loss is a sum
over units (pairs, tokens); the engine divides each by its count over the whole global batch, so the
loss does not depend on how samples are spread over ranks and micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Positions: TypeAlias = npt.NDArray[np.int64]
Batch: TypeAlias = "dict[str, torch.Tensor]"


@runtime_checkable
class Source(Protocol):
    """Samples of a run by position. Epochs follow one another without a gap.

    ``digest`` names the data: sample k is a pure function of (digest, seed, settings, k), for any
    number of ranks and loader workers, and after any restart. With ``loaders`` above 0, `batch` and
    `places` are called from several threads at once.
    """

    digest: str

    def samples(self, epochs: float) -> int:
        """Return how many samples the first `epochs` epochs have."""

    def batch(self, positions: Positions) -> Batch:
        """Return the samples at `positions`, in that order."""

    def places(self, positions: Positions) -> list[dict[str, Any]]:
        """Return where samples lie: epoch, shard, row group, row, and ids that lead to the source."""


class Objective(Protocol):
    """A loss that is a sum over samples: micro-batches and ranks may be taken one by one."""

    additive: bool  # True
    weights: Mapping[str, float]

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the units of each component in this part of a batch; needs no model."""

    def components(self, model: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return the sum of each component over this part of a batch: 0-d tensors with gradient."""


class GlobalObjective(Protocol):
    """A loss in which samples of the whole global batch meet (contrastive losses).

    The engine calls `represent` on each micro-batch, gathers over ranks, and calls `components` once a
    rank. With several micro-batches it first represents all of them without a graph and then recomputes
    each (GradCache, arXiv:2101.06983), so the gradient is that of the one-shot global batch.
    """

    additive: bool  # False
    weights: Mapping[str, float]

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the units of each component in this part of a batch; needs no model."""

    def represent(self, model: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return representations: tensors [n, ...] of the n samples, and 0-d tensors that are
        shared by all samples (a temperature)."""

    def components(
        self, local: Mapping[str, torch.Tensor], everywhere: Mapping[str, torch.Tensor], offset: int
    ) -> Mapping[str, torch.Tensor]:
        """Return the sum of each component over this rank's samples.

        ``local``: this rank's representations [n, ...]; ``everywhere``: those of all ranks
        [N, ...], with gradient; this rank's are rows ``offset`` to ``offset + n``.
        """


@dataclass(frozen=True)
class Parts:
    """What a run is made of. Built in this order; each builder sees what was built before it."""

    tokenizer: Any = None  # tokenizers.Tokenizer
    model: Any = None  # torch.nn.Module
    source: Source | None = None
    objective: Objective | GlobalObjective | None = None


@dataclass(frozen=True)
class Place:
    """This process among all: rank of ranks, rank on its host, and the device."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    device: str = "cpu"


def rows_of(positions: Positions, rank: int, ranks: int) -> Positions:
    """Return a rank's positions of a global batch: a contiguous part, all of one size."""
    part = len(positions) // ranks
    return positions[rank * part : (rank + 1) * part]


def chunked(positions: Positions, size: int) -> Sequence[Positions]:
    """Return positions in micro-batches of at most `size`."""
    return [positions[i : i + size] for i in range(0, len(positions), size)]
