"""One optimizer step of an objective: additive, or over the whole global batch.

Gradient convention: DeepSpeed averages over ranks, so each rank's part of the loss is multiplied by
the number of ranks. A component's sum is divided by its count over the whole global batch, never by
that of a micro-batch or rank.

Random numbers of a forward pass (dropout) are seeded by (seed, step, rank, micro-batch): a
recomputed pass and a continued run draw the same without any saved state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from schemas.ids import id128
from trainer.engine.feed import Feed
from trainer.engine.representations import Tensors, joined, pulled
from trainer.engine.verdict import Agreed
from trainer.protocols import Batch, GlobalObjective, Objective, Place, Positions

if TYPE_CHECKING:
    import torch


class NotFinite(Exception):
    """The loss, or else the gradient, is NaN or infinite; no weight has changed.

    ``positions``: int64[n], the samples of this rank whose own values are not finite, if any.
    """

    def __init__(self, what: str, values: Mapping[str, float], positions: Positions) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        super().__init__(f"the {what} is not finite ({shown})")
        self.positions = positions


@dataclass
class Outcome:
    """A step's results, the same on all ranks: loss, components as means over their units, the
    ranks' wishes summed, and the norm of the gradient before clipping (a number, or a tensor that is
    not waited for). ``seconds``: time in forward, backward and optimizer step."""

    loss: float
    components: dict[str, float]
    stops: list[int]
    grad_norm: Any = None
    seconds: float = 0.0


def never() -> list[int]:
    """No wish to stop."""
    return []


def forward_seed(seed: int, step: int, rank: int, number: int) -> int:
    """Return the seed of the random numbers in one forward pass: micro-batch `number` of a rank."""
    name = id128(b"forward", *(n.to_bytes(8, "little") for n in (seed, step, rank, number)))
    return int.from_bytes(name[:8], "little") >> 1


@dataclass
class Stepper:
    """Makes optimizer steps. ``clip`` is set if DeepSpeed does not clip itself.

    ``wishes``: what this rank asks of all, small whole numbers that are summed over ranks.
    """

    engine: Any
    objective: Objective | GlobalObjective
    place: Place
    seed: int
    norm: bool = False
    clip: float | None = None
    wishes: Callable[[], list[int]] = never
    _seconds: float = field(default=0.0, init=False)
    _own_counts: Any = field(default=None, init=False)
    _parameters: list[Any] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        # To walk a model's modules costs a millisecond.
        self._parameters = [p for p in self.engine.module.parameters() if p.requires_grad]

    def step(self, feed: Feed, lr: float) -> Outcome:
        """Train on a step's global batch; every rank calls this with its own part.

        Raises NotFinite on all ranks together, before the weights change.
        """
        self._seconds = 0.0
        for group in self.engine.basic_optimizer.param_groups:
            group["lr"] = lr
        parts = [self._moved(batch) for batch in feed.batches]
        counts = self._counts(feed.batches)
        if self.objective.additive:
            agreed, suspects = self._additive(feed, parts, counts)
        else:
            agreed, suspects = self._global(feed, parts, counts)
        with self._timed():
            names = list(self.objective.weights)
            values = agreed.values()
        sums, units, stops = (values[i * len(names) :] for i in range(3))
        means = {n: v / max(1.0, u) for n, v, u in zip(names, sums, units, strict=False)}
        loss = sum(self.objective.weights[name] * mean for name, mean in means.items())
        if not math.isfinite(loss):
            raise NotFinite("loss", means, suspects())
        outcome = Outcome(loss, means, [round(v) for v in stops])
        with self._timed():
            outcome.grad_norm = self._update(loss)
        outcome.seconds = self._seconds
        return outcome

    def _update(self, loss: float) -> Any:
        """Change the weights; returns the norm of the gradient before clipping."""
        import numpy as np
        import torch

        norm: Any = None
        nobody = np.empty(0, np.int64)
        if self.norm:
            for parameter in self._parameters:  # as with several ranks, and at other stages
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters])
            if not bool(torch.isfinite(norm)):
                raise NotFinite("gradient", {"loss": loss, "norm": float(norm)}, nobody)
            if self.clip:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self.clip, norm)
        self.engine.step()
        if not self.engine.was_step_applied():
            raise NotFinite("gradient", {"loss": loss}, nobody)
        if norm is None:
            norm = self.engine.get_global_grad_norm()
        return norm

    def _additive(
        self, feed: Feed, parts: list[Batch], counts: torch.Tensor
    ) -> tuple[Agreed, Callable[[], Positions]]:
        """Add gradients of one micro-batch after the other."""
        objective = cast(Objective, self.objective)
        sums: list[torch.Tensor] = []
        last = len(parts) - 1
        for number, batch in enumerate(parts):
            self.engine.set_gradient_accumulation_boundary(number == last)
            with self._timed():
                self._seed(feed.step, number)
                components = objective.components(self.engine, batch)
                sums.append(self._vector(components))
                if number == last:
                    agreed = self._agree(sums)
                self.engine.backward(self._loss(components, counts), scale_wrt_gas=False)

        def suspects() -> Positions:
            return _rows_of_non_finite(feed.positions, sums, whole=True)

        return agreed, suspects

    def _global(
        self, feed: Feed, parts: list[Batch], counts: torch.Tensor
    ) -> tuple[Agreed, Callable[[], Positions]]:
        """Represent all micro-batches, take the loss over all ranks' samples once, then lead its
        gradient back through each micro-batch, computed again unless it is the only one."""
        import torch

        objective = cast(GlobalObjective, self.objective)
        single = len(parts) == 1
        self.engine.set_gradient_accumulation_boundary(single)
        with self._timed():
            found: list[Tensors] = []
            for number, batch in enumerate(parts):
                self._seed(feed.step, number)
                with nullcontext() if single else torch.no_grad():
                    found.append(objective.represent(self.engine, batch))
            local = joined(found)
            everywhere = self._gathered(local)
            rows = sum(len(p) for p in feed.positions)
            components = objective.components(local, everywhere, self.place.rank * rows)
            agreed = self._agree([self._vector(components)])
            gradients = self._gradients(self._loss(components, counts), local, everywhere)
        start = 0
        for number, batch in enumerate(parts):
            with self._timed():
                if not single:
                    self.engine.set_gradient_accumulation_boundary(number == len(parts) - 1)
                    self._seed(feed.step, number)
                    found[number] = objective.represent(self.engine, batch)
                stop = start + len(feed.positions[number])
                scalar = pulled(found[number], gradients, start, stop, first=number == 0)
                self.engine.backward(scalar, scale_wrt_gas=False)
                start = stop

        def suspects() -> Positions:
            import numpy as np

            values = [t.detach() for t in local.values() if t.ndim]
            return _rows_of_non_finite([np.concatenate(feed.positions)], values, whole=False)

        return agreed, suspects

    def _gathered(self, local: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All ranks' representations [N, ...]; with one rank they are the local ones."""
        import torch
        import torch.distributed as dist

        if self.place.ranks == 1:
            return local
        out: dict[str, torch.Tensor] = {}
        for name, value in local.items():
            if value.ndim == 0:
                out[name] = value
                continue
            shape = (self.place.ranks * len(value), *value.shape[1:])
            whole = torch.empty(shape, dtype=value.dtype, device=value.device)
            dist.all_gather_into_tensor(whole, value.detach().contiguous())
            out[name] = whole.requires_grad_(value.requires_grad)
        return out

    def _gradients(self, loss: torch.Tensor, local: Tensors, everywhere: Tensors) -> Tensors:
        """The gradient of the loss of all ranks with respect to this rank's representations.

        Other ranks' losses reach them through the gather: its gradient is summed over ranks.
        """
        import torch
        import torch.distributed as dist

        names = [name for name, value in local.items() if value.requires_grad]
        leaves = [local[name] for name in names]
        gathered = [n for n in names if everywhere[n] is not local[n]]
        leaves += [everywhere[name] for name in gathered]
        found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        gradients = dict(zip(names, found, strict=False))
        for name, gradient in zip(gathered, found[len(names) :], strict=True):
            mine = torch.empty_like(local[name])
            dist.reduce_scatter_tensor(mine, gradient.contiguous())
            gradients[name] = gradients[name] + mine
        return gradients

    def _loss(self, components: Tensors, counts: torch.Tensor) -> torch.Tensor:
        """This rank's loss, for DeepSpeed's average over ranks."""
        total: Any = 0.0
        for number, (name, weight) in enumerate(self.objective.weights.items()):
            unit = weight * self.place.ranks / counts[number].clamp(min=1)
            total = total + components[name] * unit.to(components[name].dtype)
        return cast("torch.Tensor", total)

    def _counts(self, batches: list[Batch]) -> torch.Tensor:
        """Units of each component over the whole global batch: float64[c] on the device."""
        import torch
        import torch.distributed as dist

        found = [self.objective.counts(batch) for batch in batches]
        own = [sum(counts[name] for counts in found) for name in self.objective.weights]
        counts = torch.tensor(own, dtype=torch.float64).to(self.place.device, non_blocking=True)
        self._own_counts = counts.clone()
        if self.place.ranks > 1:
            dist.all_reduce(counts)
        return counts

    def _vector(self, components: Tensors) -> torch.Tensor:
        import torch

        values = [components[name].detach().double() for name in self.objective.weights]
        return torch.stack(values)

    def _agree(self, sums: list[torch.Tensor]) -> Agreed:
        import torch

        wishes = torch.tensor(self.wishes(), dtype=torch.float64).to(sums[0].device)
        vector = torch.cat([torch.stack(sums).sum(0), self._own_counts, wishes])
        return Agreed(vector, self.place.ranks)

    def _moved(self, batch: Batch) -> Batch:
        if self.place.device == "cpu":
            return batch
        return {n: t.to(self.place.device, non_blocking=True) for n, t in batch.items()}

    def _seed(self, step: int, number: int) -> None:
        import torch

        seed = forward_seed(self.seed, step, self.place.rank, number)
        # Not torch.manual_seed: it formats the stack for GPUs that are not there, most of 1 ms.
        torch.default_generator.manual_seed(seed)
        if self.place.device != "cpu":
            torch.cuda.manual_seed(seed)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - begun


def _rows_of_non_finite(
    positions: list[Positions], values: list[torch.Tensor], *, whole: bool
) -> Positions:
    """Positions whose values are not finite.

    ``whole``: values[i] stands for all of micro-batch i; else each is [n, ...] over all positions.
    """
    import numpy as np
    import torch

    everything = np.concatenate(positions)
    if whole:
        sizes = [len(part) for part in positions]
        return everything[np.repeat([not bool(torch.isfinite(v).all()) for v in values], sizes)]
    rows = np.zeros(len(everything), bool)
    for value in values:
        if value.is_floating_point():
            rows |= ~torch.isfinite(value).flatten(1).all(1).cpu().numpy()
    return everything[rows]
