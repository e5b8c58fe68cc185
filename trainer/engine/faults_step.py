"""A step that leaves nothing behind when it is not made: decided by all ranks before the weights change.

What DeepSpeed 0.19 does with a gradient that is not finite depends on stage and precision, and its
own skipping of a step is the only way that empties its buffers. So a step that shall not be made (its
loss is not finite, or it is a spike) is given to DeepSpeed as one whose gradient is not finite, by the
function that takes the gradient's norm. All numbers that decide are sums over ranks, the same on each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, cast

from schemas.errors import UsageError
from trainer.engine.faults import Faults, Spike
from trainer.engine.feed import Feed
from trainer.engine.step import NotFinite, Outcome, Stepper
from trainer.protocols import Objective, Positions


@dataclass
class GuardedStepper(Stepper):
    """A Stepper that knows spikes, and whose step that failed can be discarded.

    UsageError for DeepSpeed settings by which a gradient that is not finite would change weights.
    """

    faults: Faults = field(kw_only=True)
    _refused: bool = field(default=False, init=False)
    _spike: Spike | None = field(default=None, init=False)
    _discarded: bool = field(default=False, init=False)
    _norm_seen: float = field(default=math.nan, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._stage = self.engine.zero_optimization_stage()
        wrapper = self.engine.optimizer
        for name, setting in (
            ("check_grad_overflow", "bf16.check_grad_overflow"),
            ("compute_grad_norm", "zero_optimization.compute_grad_norm"),
        ):
            bf16 = self.engine.bfloat16_enabled()
            if not getattr(wrapper, name, True) and (bf16 or name == "compute_grad_norm"):
                raise UsageError(
                    f"deepspeed.{setting}=false would let a gradient that is not finite change the "
                    "weights: leave it out"
                )
        self._own_clearing = False
        if hasattr(wrapper, "scaled_global_norm"):  # stages 1 and 2
            self._wrap(wrapper, "scaled_global_norm", self._norm)
        elif hasattr(wrapper, "_get_norm_groups"):  # stage 3
            self._wrap(wrapper, "_get_norm_groups", self._norm)
        elif hasattr(wrapper, "get_grads_for_norm"):  # stage 1 in bf16
            self._wrap(wrapper, "get_grads_for_norm", self._of_norm)
        elif hasattr(wrapper, "overflow_checker"):  # stage 0 in bf16
            self._wrap(wrapper.overflow_checker, "check", self._overflow)
        else:  # stage 0 in fp32: gradients are the parameters' own
            self._own_clearing = True

    def step(self, feed: Feed, lr: float) -> Outcome:
        """As `Stepper.step`; raises NotFinite, or Spike, on all ranks together.

        The gradient is still in DeepSpeed then: `discard` it, or make no step any more.
        """
        self._discarded = False
        try:
            outcome = super().step(feed, lr)
        except Spike:
            raise
        except NotFinite as error:
            if self.objective.additive and len(alone := self._not_finite_alone(feed)):
                error.positions = alone
            raise
        self.faults.loss.note(outcome.loss)
        self.faults.gradient.note(self._norm_seen)
        return outcome

    def discard(self) -> None:
        """Empty what the step that failed left in DeepSpeed. Called by all ranks."""
        if not self._discarded:  # by DeepSpeed itself
            self._refused = True
            try:
                if self._own_clearing:
                    self.engine.zero_grad()
                else:
                    self.engine.step()
            finally:
                self._refused = False
        if self._stage == 3:
            # Else a parameter without a gradient in the next step would find this one.
            self.engine.optimizer.grad_partitions_flat_buffer.zero_()

    def _not_finite_alone(self, feed: Feed) -> Positions:
        """Samples of this rank whose own loss is not finite: each is passed forward again by itself.

        All ranks make equally many passes, as ZeRO-3 wants it.
        """
        import numpy as np
        import torch

        objective = cast(Objective, self.objective)
        found = []
        for number, batch in enumerate(feed.batches):
            parts = self._moved(batch)
            for row, position in enumerate(feed.positions[number].tolist()):
                self._seed(feed.step, number)
                with torch.no_grad():
                    one = {name: values[row : row + 1] for name, values in parts.items()}
                    sums = self._vector(objective.components(self.engine, one))
                if not bool(torch.isfinite(sums).all()):
                    found.append(position)
        return np.array(found, np.int64)

    def _update(self, loss: float) -> Any:
        self.faults.loss.check(loss)
        if self.faults.gradient.watched and not self._stage:
            self._check_gradients([p.grad for p in self._parameters if p.grad is not None])
        self._spike = None
        self._discarded = not self.norm
        try:
            return super()._update(loss)
        except NotFinite:
            if self._spike is not None:
                raise self._spike from None
            raise

    def _check_gradients(self, gradients: list[Any]) -> None:
        """Raise Spike where each rank has the whole gradient."""
        import torch
        import torch.distributed as dist

        norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        if self.place.ranks > 1:  # each took it by itself: one number for all
            dist.broadcast(norm, 0)
        self._norm_seen = float(norm)
        if math.isfinite(self._norm_seen):
            self.faults.gradient.check(self._norm_seen)

    def _of_norm(self, found: Any) -> Any:
        """The gradients that DeepSpeed takes the norm of, (dense, experts'); NaN if refused."""
        import torch

        if not isinstance(found, tuple):  # those that it clips
            return found
        if not self._refused and self.faults.gradient.watched:
            try:
                self._check_gradients(found[0])
            except Spike as spike:
                self._spike = spike
        if not self._refused and self._spike is None:
            return found
        return [torch.full((1,), math.nan, device=found[0][0].device)], found[1]

    def _norm(self, found: Any) -> Any:
        """The norm that DeepSpeed took, a tensor or those of groups; -1 (invalid) if refused."""
        import torch

        groups = found if isinstance(found, list) else [found]
        if not self._refused and self.faults.gradient.watched:
            values = [float(norm) for norm in groups]
            self._norm_seen = math.hypot(*values)
            if math.isfinite(self._norm_seen) and min(values) >= 0:
                try:
                    self.faults.gradient.check(self._norm_seen)
                except Spike as spike:
                    self._spike = spike
        if not self._refused and self._spike is None:
            return found
        invalid = [torch.full_like(torch.as_tensor(norm), -1.0) for norm in groups]
        return invalid if isinstance(found, list) else invalid[0]

    def _overflow(self, found: bool) -> bool:
        return found or self._refused

    @staticmethod
    def _wrap(owner: Any, name: str, change: Any) -> None:
        plain = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: change(plain(*args, **kwargs)))
