"""Batch size in one language: the global batch is given, all else is derived from it or refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.errors import UsageError
from trainer.config import RunConfig
from trainer.protocols import Source


@dataclass(frozen=True)
class Sizes:
    """Samples of a global batch, of a rank's part, of one forward pass, and the steps of the run;
    ``sequence``: tokens of a sample of token data, else 0."""

    batch: int
    ranks: int
    per_rank: int
    micro: int
    micro_batches: int
    steps: int
    sequence: int = 0

    def table(self) -> Iterator[str]:
        """The derived numbers, one line each."""
        rows = [
            ("samples a step", self.batch, "batch.size"),
            ("ranks", self.ranks, ""),
            ("samples a rank", self.per_rank, "batch.size / ranks"),
            ("samples a forward pass", self.micro, "batch.micro, at most a rank's"),
            ("forward passes a step and rank", self.micro_batches, ""),
            ("steps", self.steps, "length"),
            ("samples seen", self.steps * self.batch, "steps x batch.size"),
        ]
        if self.sequence:
            of_step = self.batch * self.sequence
            rows += [
                ("tokens a step", of_step, "batch.size x data.sequence_length"),
                ("tokens seen", self.steps * of_step, "steps x tokens a step"),
            ]
        for name, value, origin in rows:
            yield f"  {name:<31} {value:>13,}  {origin}".rstrip()


def sizes(config: RunConfig, ranks: int, source: Source | None = None) -> Sizes:
    """Derive all sizes; `source` is needed for a length in epochs.

    A length that is no whole number of steps is rounded down: no step is smaller than the others.
    Raises UsageError for a batch that does not split evenly, naming the nearest sizes that do.
    """
    size, sequence = config.batch.size, config.sequence_length or 0
    if size % ranks:
        unit, given = 1, f"batch.size={size}"
        if config.batch.tokens is not None:
            unit, given = sequence, f"batch.tokens={size * sequence} ({size} of {sequence} tokens)"
        near = (size // ranks * ranks, -(-size // ranks) * ranks)
        raise UsageError(
            f"{given} does not split evenly over {ranks} ranks: give "
            f"{_either(n * unit for n in near if n)}"
        )
    per_rank = size // ranks
    micro = min(config.batch.micro or per_rank, per_rank)
    if per_rank % micro:
        fitting = [n for n in range(1, per_rank + 1) if per_rank % n == 0]
        near = (max(n for n in fitting if n < micro), min(n for n in fitting if n > micro))
        other, tokens = "", f"batch.size={size}"
        if config.batch.tokens is not None:
            tokens = f"batch.tokens={config.batch.tokens} is {size} sequences"
            part = micro * ranks * sequence
            whole = config.batch.tokens // part
            other = f", or batch.tokens={_either((whole * part, (whole + 1) * part))}"
        raise UsageError(
            f"batch.micro={micro} does not divide the {per_rank} samples of a rank "
            f"({tokens} over {ranks} ranks): give batch.micro={_either(near)}{other}"
        )
    steps = _steps(config, source)
    if config.schedule.warmup > steps:
        raise UsageError(
            f"schedule.warmup={config.schedule.warmup} is more than the {steps} steps of the run: "
            f"give at most {steps}, or a longer run"
        )
    return Sizes(size, ranks, per_rank, micro, per_rank // micro, steps, sequence)


def _steps(config: RunConfig, source: Source | None) -> int:
    length, size = config.length, config.batch.size
    if length.steps is not None:
        return length.steps
    if length.samples is not None:
        samples, given = length.samples, f"length.samples={length.samples}"
    elif length.tokens is not None:
        samples = length.tokens // (config.sequence_length or 1)
        given = f"length.tokens={length.tokens} ({samples} samples)"
    else:
        assert length.epochs is not None and source is not None
        samples = source.samples(length.epochs)
        given = f"length.epochs={length.epochs:g} ({samples} samples)"
    if samples < size:
        raise UsageError(
            f"{given} is less than one step of batch.size={size} samples: give a longer run, or "
            f"batch.size={samples or 1} at most"
        )
    return samples // size


def _either(numbers: Iterator[int] | tuple[int, ...]) -> str:
    return " or ".join(str(n) for n in dict.fromkeys(numbers))
