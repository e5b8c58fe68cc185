"""Tokens a second and model FLOPs utilisation (MFU) of a run, for its metrics. Waits for no device.

MFU is the operations that the model needs for rank 0's tokens (`trainer.flops`) over what its device could
have made in the time. On a GPU that is its maker's number for dense bf16, in fp32 runs too. On a CPU it is
the rate of a product of large matrices in the run's precision on as many threads as the run has, measured
once for `MEASURED` seconds and kept beside the indexes of token data (`trainer.packing.cache`).
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import flops
from trainer.config import RunConfig
from trainer.engine.metrics import Clock
from trainer.launching import devices
from trainer.packing import cache
from trainer.protocols import Batch, Parts, Place

MEASURED = 0.5
"""Seconds that the product of matrices is repeated for."""


@dataclass(frozen=True)
class Peak:
    """Operations a second of a rank's device; where they are from."""

    operations: float
    origin: str


class Rates(Clock):
    """A `Clock` that also counts tokens: ``tokens_per_s`` over all ranks, without padding, and ``mfu``
    of rank 0. For data that is not token data, and on other ranks, it is a `Clock`."""

    def __init__(self, batch: int, config: RunConfig, parts: Parts, place: Place) -> None:
        super().__init__(batch)
        self._of = flops.operations(parts.model) if not place.rank and _is_text(parts) else None
        self.peak = peak(config.precision, place) if self._of else None
        self._ranks = place.ranks
        self._tokens = self._pairs = 0

    def facts(self) -> dict[str, str]:
        """Return what ``mfu`` is of, if it is told."""
        return {"peak": self.peak.origin} if self.peak else {}

    def count(self, batches: list[Batch], inside: float) -> None:
        """Count a step and its micro-batches on this rank."""
        self.step(inside)
        if self._of is not None:
            for batch in batches:
                tokens, pairs = flops.seen(batch)
                self._tokens += tokens
                self._pairs += pairs

    def read(self) -> dict[str, float]:
        """Return the rates since they were last read; those of the clock, and of tokens."""
        wall = max(self._wall, 1e-9)
        values = super().read()
        if self._of is not None:
            values["tokens_per_s"] = self._ranks * self._tokens / wall
            if self.peak is not None:
                made = self._of.training(self._tokens, self._pairs)
                values["mfu"] = made / wall / self.peak.operations
        self._tokens = self._pairs = 0
        return values


def _is_text(parts: Parts) -> bool:
    return getattr(parts.source, "sequence", None) is not None


def peak(precision: str, place: Place) -> Peak | None:
    """Return the peak of a rank's device; None for a GPU that is not in the table."""
    import torch

    if place.device != "cpu":
        full = torch.cuda.get_device_name(place.local_rank)
        name = devices.recognised(full)
        return Peak(devices.DEVICES[name].peak, f"{full}, its maker's number") if name else None
    threads = torch.get_num_threads()
    key = f"{platform.node()}, {precision}, {threads} threads, torch {torch.__version__}"
    file = cache.folder().parent / "gemm-peak.json"
    known = _known(file)
    if key not in known:
        known[key] = _measured(precision)
        _keep(file, known)
    on = f"{threads} threads" if threads > 1 else "one thread"
    return Peak(known[key], f"a product of matrices in {precision} on {on}")


def _measured(precision: str) -> float:
    """Operations a second of the fastest of the products that `MEASURED` seconds allow."""
    import torch

    size = 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(kind) for _ in range(2))
    out = torch.empty(size, size, dtype=kind)
    best, end = float("inf"), time.perf_counter() + MEASURED
    with torch.no_grad():
        torch.mm(left, right, out=out)  # the first has the library's start in it
        while True:
            begun = time.perf_counter()
            torch.mm(left, right, out=out)
            now = time.perf_counter()
            best = min(best, now - begun)
            if now > end:
                return 2 * size**3 / best


def _known(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, float) and v > 0}


def _keep(file: Path, known: dict[str, Any]) -> None:
    """Write the rates for the next run; without them it measures again."""
    temporary = file.with_suffix(f".{time.time_ns()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
