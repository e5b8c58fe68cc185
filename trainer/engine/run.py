"""A training run, in one rank's process: build, continue, loop, save, finish."""

from __future__ import annotations

import bisect
import contextlib
import json
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import CheckFailed, IntegrityError
from schemas.storage import Storage, storage
from trainer import data_tokenizer
from trainer.config import RunConfig, part
from trainer.engine import deepspeed, directory
from trainer.engine.feed import Feed, feed, step_positions
from trainer.engine.metrics import Clock, Metrics, Progress, duration
from trainer.engine.schedule import learning_rate
from trainer.engine.signals import Signals, exit_code
from trainer.engine.sizes import Sizes, sizes
from trainer.engine.step import NotFinite, Outcome, Stepper
from trainer.engine.together import agreed, everyone, loss_of_peer
from trainer.protocols import Batch, Parts, Place, Source


def train(config: RunConfig, place: Place) -> int:
    """Train, or continue, the run of `config` as one of its ranks; returns the exit code.

    The same command continues from the latest checkpoint, also with other ranks or another ZeRO
    stage. 130 and 143: stopped by Ctrl-C or SIGTERM after a checkpoint. Errors: UsageError for
    settings that contradict each other, ConflictError for a directory of another run, CheckFailed
    for a loss that is not finite, JobError for the end of another rank.
    """
    output = directory.output_of(config)
    if config.evaluate:
        _evaluation(config)
    deepspeed.join(place)
    try:
        agreed(place, lambda: directory.check(config))
        parts = build(config, place)
        assert parts.source is not None
        digest = parts.source.digest
        of = sizes(config, place.ranks, parts.source)
        parameters = sum(p.numel() for p in parts.model.parameters())
        log = output / "logs" / f"rank-{place.rank:04}.log"
        engine = deepspeed.start(parts.model, config, of, place, log)
        facts = {"ranks": place.ranks, "parameters": parameters, "digest": digest}
        agreed(place, lambda: directory.record(config, **facts))
        run = _Run(config, place, output, parts, of, engine)
        start = run.restored()
        if place.rank == 0:
            tell([f"{parameters:,} parameters, data {digest[:12]}", *of.table()])
            if summary := getattr(parts.source, "summary", None):
                tell(summary(of.steps * of.batch))
        with Metrics(output, start) if place.rank == 0 else contextlib.nullcontext() as metrics:
            code = run.loop(start, metrics)
    except Exception as error:
        if place.ranks == 1:
            deepspeed.leave()
        elif lost := loss_of_peer(error, place, output / "logs"):
            raise lost from None
        raise
    deepspeed.leave()
    if not code and config.evaluate and place.rank == 0:
        evaluate(config, output, anew=start < of.steps)
    return code


def evaluate(config: RunConfig, output: Path, *, anew: bool) -> None:
    """Score the run's last checkpoint as ``evaluate:`` of its settings says, into OUTPUT/eval/.

    ``anew``: also if there is a result already.
    """
    from trainer.evaluation import language, registry

    name, settings = _evaluation(config)
    if anew or not (output / "eval" / f"{name}.json").exists():
        result = registry.evaluate(language.load(str(output)), name, settings)
        registry.write(result, str(output))
        tell(registry.table(result))


def _evaluation(config: RunConfig) -> tuple[str, dict[str, Any]]:
    """Name and settings of ``evaluate:``. UsageError if there is no such evaluation or setting."""
    from trainer.evaluation import registry

    settings = dict(config.evaluate or {})
    name = str(settings.pop("name", None))
    registry.named(name, settings)
    return name, settings


def build(config: RunConfig, place: Place) -> Parts:
    """Build a run's parts in their order; every rank starts from the same random weights."""
    import torch

    parts = Parts()
    if data_tokenizer.named(config.tokenizer):
        parts = Parts(tokenizer=data_tokenizer.for_run(config, place))
    elif config.tokenizer is not None or config.model.get("init_from"):
        from trainer import tokenizer

        parts = Parts(tokenizer=tokenizer.for_run(config, place))
    torch.manual_seed(config.seed)
    for kind, name in (("model", "model"), ("data", "source"), ("objective", "objective")):
        module, settings = part(kind, getattr(config, kind))
        parts = Parts(**{**vars(parts), name: module.build(settings, config, parts)})
    parts.model.train()
    return parts


@dataclass
class _Run:
    config: RunConfig
    place: Place
    output: Path
    parts: Parts
    of: Sizes
    engine: Any
    _ends: list[int] = field(default_factory=lambda: [0])

    @property
    def source(self) -> Source:
        assert self.parts.source is not None
        return self.parts.source

    @property
    def checkpoints(self) -> Storage:
        return storage(self.output).at("checkpoints")

    def restored(self) -> int:
        """Load the latest checkpoint, if any; returns the first step to make."""
        from trainer.engine import checkpoint

        name = checkpoint.latest(self.checkpoints)
        if name is None:
            return 0
        facts = checkpoint.restore(self.checkpoints, name, self.engine)
        wanted = {
            "position": facts["step"] * self.of.batch,
            "seed": self.config.seed,
            "data": self.source.digest,
        }
        for key, value in wanted.items():
            if facts[key] != value:
                raise IntegrityError(
                    f"{self.checkpoints.path(name)} was saved at {key} {facts[key]}, and this run "
                    f"would continue at {value}: it is of another run"
                )
        return int(facts["step"])

    def save(self, step: int) -> None:
        from trainer.engine import checkpoint

        facts = {
            "step": step,
            "position": step * self.of.batch,
            "seed": self.config.seed,
            "data": self.source.digest,
            "config": directory.config_digest(self.config),
            "ranks": self.place.ranks,
            "zero": self.config.zero,
        }
        checkpoint.save(self.checkpoints, f"step-{step:08}", self.engine, facts)
        checkpoint.prune(self.checkpoints, self.config.checkpoint.keep)

    def loop(self, start: int, metrics: Metrics | None) -> int:
        """Make the steps from `start`; returns the exit code."""
        config, of = self.config, self.of
        if metrics:
            metrics.event("continued" if start else "started", start, ranks=self.place.ranks)
        progress = Progress(of.steps, start, of.batch)
        clock = Clock(of.batch)
        begun = time.monotonic()
        code = 0
        with Signals() as signals, contextlib.closing(self._feed(start)) as feeds:
            stepper = self._stepper(signals)
            for part_ in feeds:
                done = part_.step + 1
                lr = learning_rate(config.schedule, config.optimizer.lr, part_.step, of.steps)
                outcome = self._step(stepper, part_, lr)
                clock.step(outcome.seconds)
                if metrics and (done % config.log_every == 0 or done == of.steps):
                    values = self._values(part_, outcome, lr)
                    metrics.step(done, {**values, **clock.read()})
                if self.place.rank == 0:
                    progress.show(done, outcome.loss)
                code = 0 if done == of.steps else exit_code(outcome.stops)
                every = config.checkpoint.every
                if done == of.steps or code or (every and done % every == 0):
                    self.save(done)
                    self.tell_replaced(done, metrics)
                    if metrics:
                        metrics.event("saved", done, checkpoint=f"step-{done:08}")
                    clock.pause()
                if code:
                    break
        if self.place.rank == 0:
            progress.close()
            seconds = duration(time.monotonic() - begun)
            if code:
                tell(
                    [f"stopped at step {done:,} of {of.steps:,}, saved; the same command continues"]
                )
            elif start >= of.steps:
                tell([f"finished before, at step {start:,}: nothing to do"])
            else:
                tell([f"finished: {of.steps:,} steps in {seconds}, in {self.output}"])
        if metrics and not code and start < of.steps:
            metrics.event("finished", of.steps)
        return code

    def tell_replaced(self, step: int, metrics: Metrics | None) -> None:
        """Write down which samples of all ranks a source replaced, if it is one that does."""
        replaced = getattr(self.source, "replaced", None)
        if replaced is None:
            return
        found = everyone(self.place, replaced())
        if metrics is not None:
            for one in (one for rank in found for one in rank):
                metrics.event("replaced", step, **one)

    def _feed(self, start: int) -> Generator[Feed]:
        pinned = _pin if self.place.device != "cpu" else None
        return feed(self.source, self.of, self.place.rank, self.config.loaders, start, pinned)

    def _stepper(self, signals: Signals) -> Stepper:
        assert self.parts.objective is not None
        ours = deepspeed.clips_itself(self.config)
        return Stepper(
            self.engine,
            self.parts.objective,
            self.place,
            self.config.seed,
            norm=ours,
            clip=self.config.clip if ours else None,
            wishes=signals.seen,
        )

    def _step(self, stepper: Stepper, part_: Feed, lr: float) -> Outcome:
        try:
            return stepper.step(part_, lr)
        except NotFinite as error:
            positions = np.concatenate(everyone(self.place, error.positions))
            if not len(positions):  # no sample is at fault by itself
                positions = step_positions(part_.step, self.of.batch)
            places = self.source.places(positions[:_NAMED])
            step = part_.step + 1  # as metrics, checkpoints and `trainer where` count
            path = self.output / f"not-finite-step-{step:08}.json"
            found = {"step": step, "fault": str(error), "positions": positions.tolist()}
            if self.place.rank == 0:
                text = json.dumps({**found, "places": places}, indent=2)
                path.write_text(text + "\n", encoding="utf-8")
            first = "; ".join(
                f"{position} ({', '.join(f'{k} {v}' for k, v in place['ids'].items())})"
                for position, place in zip(positions[:3].tolist(), places, strict=False)
            )
            raise CheckFailed(
                f"step {step}: {error}, from {len(positions)} samples: {first}"
                f"{', ...' if len(positions) > 3 else ''}; {path} has all. The step changed no "
                "weight. Look at these samples, or begin anew with a lower optimizer.lr=, a longer "
                "schedule.warmup= or clip=1"
            ) from None

    def _values(self, part_: Feed, outcome: Outcome, lr: float) -> dict[str, Any]:
        norm = outcome.grad_norm
        seen = (part_.step + 1) * self.of.batch
        return {
            "samples": seen,
            "epoch": self._epochs(seen),
            "loss": outcome.loss,
            **outcome.components,
            "lr": lr,
            "grad_norm": None if norm is None else float(norm),
        }

    def _epochs(self, seen: int) -> float:
        """Epochs that so many samples are, 1.25 for one and a quarter."""
        ends = self._ends
        while ends[-1] < seen:
            ends.append(self.source.samples(len(ends)))
        epoch = bisect.bisect_left(ends, seen) - 1
        return epoch + (seen - ends[epoch]) / (ends[epoch + 1] - ends[epoch])


_NAMED = 100
"""Samples of a loss that is not finite whose places are written down."""


def tell(lines: list[str]) -> None:
    """Lines for the person who waits."""
    print("\n".join(lines), file=sys.stderr, flush=True)


def _pin(batch: Batch) -> Batch:
    return {name: tensor.pin_memory() for name, tensor in batch.items()}
