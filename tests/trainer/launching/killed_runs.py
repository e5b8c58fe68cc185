"""Small runs that are killed and continued on several hosts, and what is compared with a run that was not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trainer import real_tokens
from tests.trainer.launching import making
from tests.trainer.launching.making import TRAINER


@dataclass(frozen=True)
class Kind:
    """A small run: its data, its words, its steps, when it saves, and after which step a rank is killed.

    That is after it began to save for the second time, so that the first checkpoint is committed.
    """

    data: Callable[[Path], Path]
    words: Callable[..., list[str]]
    steps: int
    every: int
    kill_after: int

    def settings(self, data: Path, output: Path) -> list[str]:
        """Recipe and settings."""
        return self.words(data, output, self.steps, f"checkpoint.every={self.every}")


KINDS = {
    "clip": Kind(lambda folder: making.pairs(folder / "pairs"), making.words, 30, 5, 12),
    "language": Kind(real_tokens.dataset, real_tokens.words, 400, 50, 110),
}


def losses(output: Path) -> list[tuple[int, float]]:
    """(step, loss) in the order of the metrics: a continued run tells some steps twice."""
    try:
        text = (output / "metrics.jsonl").read_text(encoding="utf-8")
    except OSError:
        return []
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def last_step(output: Path) -> int:
    """The last step that metrics tell of, 0 before the first."""
    return max((step for step, _ in losses(output)), default=0)


def continuations(output: Path) -> int:
    """How often the run was continued from a checkpoint."""
    text = (output / "metrics.jsonl").read_text(encoding="utf-8")
    return text.count('"event": "continued"')


def uninterrupted(kind: Kind, data: Path, output: Path) -> dict[int, float]:
    """{step: loss} of the same run with two ranks of this machine, which nothing disturbs."""
    command = [*TRAINER, "launch", *kind.settings(data, output), "--ranks", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = dict(losses(output))
    assert sorted(found) == list(range(1, kind.steps + 1))
    return found


def compared(output: Path, whole: dict[int, float]) -> dict[str, Any]:
    """Steps that are missing, and the largest difference of a loss, of all lives of a run."""
    found = losses(output)
    return {
        "at_step": last_step(output),
        "from_checkpoint": continuations(output),
        "steps_missing": len(set(whole) - {step for step, _ in found}),
        "losses_apart": max(abs(loss - whole[step]) for step, loss in found),
    }
