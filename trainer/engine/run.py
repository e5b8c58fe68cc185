"""A training run, in one rank's process: build, continue, loop, save, finish."""

from __future__ import annotations

import bisect
import contextlib
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.errors import CheckFailed, IntegrityError, UsageError
from schemas.storage import Storage, storage
from trainer.config import RunConfig
from trainer.engine import branch, deepspeed, directory, final_evaluation
from trainer.engine.checkpoint_place import checkpoints
from trainer.engine.checkpoint_saver import Saver
from trainer.engine.faults import Faults
from trainer.engine.faults_report import guilty
from trainer.engine.faults_step import GuardedStepper
from trainer.engine.feed import Feed, feed
from trainer.engine.footprint import Footprint
from trainer.engine.metrics import Metrics, Progress, duration
from trainer.engine.parts import build
from trainer.engine.schedule import learning_rate
from trainer.engine.signals import Signals, Wishes, exit_code
from trainer.engine.sizes import Sizes, sizes
from trainer.engine.step import NotFinite, Outcome
from trainer.engine.together import agreed, everyone, loss_of_peer
from trainer.engine.utilisation import Rates
from trainer.protocols import Batch, Parts, Place, Source


def train(config: RunConfig, place: Place) -> int:
    """Train, or continue, the run of `config` as one of its ranks; returns the exit code.

    The same command continues from the latest checkpoint, also with other ranks or another ZeRO
    stage. 129, 130 and 143: stopped by SIGHUP, Ctrl-C or SIGTERM after a checkpoint. Errors: UsageError for
    settings that contradict each other, ConflictError for a directory of another run, CheckFailed
    for a loss that is not finite, JobError for the end of another rank.
    """
    output = directory.output_of(config)
    if config.evaluate:
        final_evaluation.settings_of(config)
    deepspeed.join(place)
    try:
        agreed(place, lambda: directory.check(config))
        origin = agreed(place, lambda: branch.lineage(config))
        footprint = Footprint(place)
        parts = build(config, place)
        assert parts.source is not None
        digest = parts.source.digest
        of = sizes(config, place.ranks, parts.source)
        branch.check_length(config, of.steps)
        parameters = sum(p.numel() for p in parts.model.parameters())
        log = output / "logs" / f"rank-{place.rank:04}.log"
        engine = deepspeed.start(parts.model, config, of, place, log)
        facts = {"ranks": place.ranks, "parameters": parameters, "digest": digest}
        agreed(place, lambda: directory.record(config, branch=origin, **facts))
        run = _Run(config, place, output, parts, of, engine, footprint)
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
        tell(final_evaluation.evaluate(config, output, anew=start < of.steps))
    return code


@dataclass
class _Run:
    config: RunConfig
    place: Place
    output: Path
    parts: Parts
    of: Sizes
    engine: Any
    footprint: Footprint
    metrics: Metrics | None = None
    _ends: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        self.faults = Faults(self.config.faults, self.output)
        self.clock = Rates(self.of.batch, self.config, self.parts, self.place)
        self.saver = Saver(self.config.checkpoint, self.checkpoints, self.engine, self._saved)

    @property
    def source(self) -> Source:
        assert self.parts.source is not None
        return self.parts.source

    @property
    def checkpoints(self) -> Storage:
        return checkpoints(self.config, storage(self.output))

    def restored(self) -> int:
        """Load the latest checkpoint, if any, or that of ``branch:``; returns the first step to make."""
        from trainer.engine import checkpoint

        folder, name = self.checkpoints, checkpoint.latest(self.checkpoints)
        if name is None and self.config.branch is not None:
            folder, name = branch.checkpoint_of(self.config.branch)
            agreed(self.place, lambda: branch.check_tokenizer(self.config, self.output))
        if name is None:
            self.faults.restore({}, 0, agreed(self.place, self.faults.recorded))
            return 0
        facts = checkpoint.restore(folder, name, self.engine)
        wanted = {
            "position": facts["step"] * self.of.batch,
            "seed": self.config.seed,
            "data": self.source.digest,
        }
        if (
            self.config.checkpoint.path and folder == self.checkpoints
        ):  # another run may name it too
            wanted["config"] = directory.config_digest(self.config)
        for key, value in wanted.items():
            if facts[key] == value:
                continue
            where = f"{folder.path(name)} was saved at {key} {facts[key]}, and this run would "
            if folder != self.checkpoints:
                raise UsageError(
                    f"{where}begin from it at {value}: a branch has the data and the batch.size of "
                    f"{self.config.branch.run if self.config.branch else folder}; give those"
                )
            raise IntegrityError(f"{where}continue at {value}: it is of another run")
        step = int(facts["step"])
        later = agreed(self.place, self.faults.recorded)
        self.faults.restore(facts.get("faults", {}), step, later)
        return step

    def save(self, step: int, *, wait: bool) -> None:
        """Save; ``wait`` until it is committed, else train on after the copy."""
        facts = {
            "step": step,
            "position": step * self.of.batch,
            "seed": self.config.seed,
            "data": self.source.digest,
            "config": directory.config_digest(self.config),
            "faults": self.faults.state(),
            "ranks": self.place.ranks,
            "zero": self.config.zero,
        }
        self.saver.save(step, facts, wait=wait)
        self.tell_replaced(step)
        self.clock.pause()

    def _saved(self, step: int, seconds: float) -> None:
        if self.metrics:
            name = f"step-{step:08}"
            self.metrics.event("saved", step, checkpoint=name, stood_s=round(seconds, 4))

    def loop(self, start: int, metrics: Metrics | None) -> int:
        """Make the steps from `start`; returns the exit code."""
        of, self.metrics = self.of, metrics
        if metrics:
            facts = {"ranks": self.place.ranks, **self.clock.facts()}
            metrics.event("continued" if start else "started", start, **facts)
        progress = Progress(of.steps, start, of.batch)
        begun = time.monotonic()
        code, done = 0, start
        again: int | None = start
        with Signals() as signals:
            wishes = Wishes(signals, self.saver.ready, self.place.ranks)
            stepper = self._stepper(wishes)
            if self.config.faults.policy == "rewind" and start < of.steps:
                self._point_of_return(start)
            while again is not None:
                with contextlib.closing(self._feed(again)) as feeds:
                    code, done, again = self._steps(feeds, stepper, wishes, progress, done)
        if self.place.rank == 0:
            progress.close()
            seconds = duration(time.monotonic() - begun)
            at = f"{done:,} of {of.steps:,}"
            if code:
                tell([f"stopped at step {at}, saved; the same command continues"])
            elif start >= of.steps:
                tell([f"finished before, at step {start:,}: nothing to do"])
            else:
                tell([f"finished: {of.steps:,} steps in {seconds}, in {self.output}"])
        memory = self.footprint.highest()
        if metrics and not code and start < of.steps:
            metrics.event("finished", of.steps, memory=memory)
        return code

    def _steps(
        self,
        feeds: Iterator[Feed],
        stepper: GuardedStepper,
        wishes: Wishes,
        progress: Progress,
        done: int,
    ) -> tuple[int, int, int | None]:
        """Make steps to the end, or until the run is stopped or goes back: the exit code, the steps
        that are done, and the step to go back to."""
        for part_ in feeds:
            done, code = part_.step + 1, 0
            if not self.faults.left_out(part_.step):
                try:
                    outcome = self._made(part_, stepper)
                except NotFinite as error:
                    again = self._fault(error, part_.step, stepper)
                    if again is not None:
                        return 0, again, again
                else:
                    if self.place.rank == 0:
                        progress.show(done, outcome.loss)
                    stops, written = wishes.heard(outcome)
                    code = exit_code(stops)
                    if written:
                        self.saver.finish()
                        self.clock.pause()
            last = done == self.of.steps
            if last or code or self.saver.due(done):
                self.save(done, wait=last or bool(code))
            if code and not last:
                return code, done, None
        return 0, done, None

    def _made(self, part_: Feed, stepper: GuardedStepper) -> Outcome:
        """Make a step; NotFinite if it was not to be made."""
        config, done = self.config, part_.step + 1
        lr = learning_rate(config.schedule, config.optimizer.lr, part_.step, self.of.steps)
        outcome = stepper.step(part_, lr)
        self.clock.count(part_.batches, outcome.seconds)
        if self.metrics and (done % config.log_every == 0 or done == self.of.steps):
            self.metrics.step(done, self._values(part_, outcome, lr) | self.clock.read())
        return outcome

    def _point_of_return(self, start: int) -> None:
        """Have a checkpoint to go back to before the first step."""
        from trainer.engine import checkpoint

        if agreed(self.place, lambda: checkpoint.latest(self.checkpoints)) is None:
            self.save(start, wait=True)

    def _fault(self, error: NotFinite, step: int, stepper: GuardedStepper) -> int | None:
        """Do what ``faults.policy`` says of a step that was not made: raise CheckFailed, or return the
        step to go on from after a return to a checkpoint; None to go on with the next."""
        found = guilty(error, step, self.of.batch, self.source, self.place)
        path, policy = self.faults.path(step), self.config.faults.policy
        self.saver.finish()
        if policy == "stop":
            agreed(self.place, lambda: found.write(self.faults, None))
            raise CheckFailed(
                f"step {step + 1}: {found.text()}; {path} has all. The step changed no weight. "
                "Look at these samples, leave them out with faults.policy=skip, or begin anew with a "
                "lower optimizer.lr=, a longer schedule.warmup= or clip=1"
            )
        stepper.discard()
        back, first = None, step
        if policy == "rewind":
            back = self.restored()
            first = max(back, step - self.config.faults.before)
        try:
            fault = self.faults.add(step, first, found.why)
        except CheckFailed:
            agreed(self.place, lambda: found.write(self.faults, None))
            raise
        agreed(self.place, lambda: found.write(self.faults, fault))
        if self.metrics:
            ids = found.ids[:EVENT_SAMPLES]
            values = {"fault": found.why, "first": first + 1, "samples": len(found.positions)}
            self.metrics.event("left_out", step + 1, **values, ids=ids, file=str(path), back=back)
        if self.place.rank == 0:
            steps = f"steps {first + 1:,} to {step + 1:,} are"
            steps = steps if first < step else f"step {step + 1:,} is"
            tell([f"{steps} left out: {found.text()}; see {path}"])
        self.clock.pause()
        return back

    def tell_replaced(self, step: int) -> None:
        """Write down which samples of all ranks a source replaced, if it is one that does."""
        replaced = getattr(self.source, "replaced", None)
        if replaced is None:
            return
        found = everyone(self.place, replaced())
        if self.metrics is not None:
            for one in (one for rank in found for one in rank):
                self.metrics.event("replaced", step, **one)

    def _feed(self, start: int) -> Generator[Feed]:
        pinned = _pin if self.place.device != "cpu" else None
        return feed(self.source, self.of, self.place.rank, self.config.loaders, start, pinned)

    def _stepper(self, wishes: Wishes) -> GuardedStepper:
        assert self.parts.objective is not None
        ours = deepspeed.clips_itself(self.config)
        return GuardedStepper(
            self.engine,
            self.parts.objective,
            self.place,
            self.config.seed,
            norm=ours,
            clip=self.config.clip if ours else None,
            wishes=wishes.own,
            faults=self.faults,
        )

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


EVENT_SAMPLES = 20
"""Samples of a fault whose ids are in its line of metrics.jsonl; the fault's own file has more."""


def tell(lines: list[str]) -> None:
    """Lines for the person who waits."""
    print("\n".join(lines), file=sys.stderr, flush=True)


def _pin(batch: Batch) -> Batch:
    return {name: tensor.pin_memory() for name, tensor in batch.items()}
