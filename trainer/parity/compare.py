"""Runs every variant and says how far it is from the reference, and whether that is rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import JobError
from trainer.config import RunConfig
from trainer.launching.environment import LOOPBACK, free_port, host_environment, rank_environment
from trainer.parity.plain import reference
from trainer.parity.variants import PROBES, Variant, probed

if TYPE_CHECKING:
    import torch

LIMITS = {"loss": 1e-6, "gradient": 1e-5, "update": 1e-5, "adamw": 1e-5}
"""Largest relative difference: of losses; of each parameter's gradient and of its change by SGD, in
L2; of the losses of 20 steps of AdamW."""

FLOOR = 1e-8
"""Norm below which a gradient is rounding and nothing else: differences are taken relative to at
least ``FLOOR / LIMITS['gradient']``."""


@dataclass(frozen=True)
class Row:
    """A variant's largest differences, and the parameter whose gradient is furthest off."""

    variant: str
    loss: float
    gradient: float
    update: float
    adamw: float
    worst: str

    @property
    def holds(self) -> bool:
        """Whether each difference is within its limit."""
        return all(getattr(self, name) <= limit for name, limit in LIMITS.items())


def rows(
    config: RunConfig, variants: Sequence[Variant], folder: Path, tell: Callable[[str], None]
) -> Iterator[Row]:
    """Yield a row for each variant; ``folder`` is scratch. JobError for ranks that end early."""
    wanted = {}
    for probe in PROBES:
        tell(f"reference, {probe}: {PROBES[probe]['length']['steps']} steps in one process")
        wanted[probe] = reference(probed(config, probe), gradients=probe == "sgd")
    start = _start_of(config)
    for ranks in sorted({v.ranks for v in variants if not v.unpacked}):
        these = [v for v in variants if v.ranks == ranks and not v.unpacked]
        tell(f"{len(these)} variants on {ranks} rank{'s' if ranks > 1 else ''}")
        found = _run(config, these, ranks, folder)
        for variant, results in zip(these, found, strict=True):
            yield _row(variant.name, results, wanted, start)
    for variant in variants:
        if variant.unpacked:
            results = {
                probe: reference(probed(config, probe), gradients=probe == "sgd", unpacked=True)
                for probe in PROBES
            }
            yield _row(variant.name, results, wanted, start)


def _start_of(config: RunConfig) -> dict[str, torch.Tensor]:
    """The weights that every variant begins with."""
    from trainer.engine.parts import build
    from trainer.protocols import Place

    model = build(probed(config, "sgd"), Place()).model
    return {n: p.detach().clone().reshape(-1) for n, p in model.named_parameters()}


def _run(
    config: RunConfig, variants: Sequence[Variant], ranks: int, folder: Path
) -> list[dict[str, dict[str, Any]]]:
    """The results of each variant by probe, made by one group of processes."""
    import torch

    files = [
        [folder / f"{ranks}-{number}-{probe}.pt" for probe in PROBES]
        for number in range(len(variants))
    ]
    jobs = [
        {
            "config": probed(config, probe, variant.changes).model_dump(),
            "gradients": probe == "sgd",
            "file": str(file),
        }
        for variant, of_variant in zip(variants, files, strict=True)
        for probe, file in zip(PROBES, of_variant, strict=True)
    ]
    file = folder / f"{ranks}.json"
    file.write_text(json.dumps(jobs), encoding="utf-8")
    master = LOOPBACK, free_port()
    processes = []
    for rank in range(ranks):
        own = rank_environment(rank, ranks, rank, ranks, master)
        environment = os.environ | host_environment(ranks, LOOPBACK) | own
        log = folder / f"{ranks}-rank-{rank}.log"
        with log.open("wb") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "trainer.parity.rank", str(file)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    _wait(processes, ranks, folder)
    return [
        {p: torch.load(f, weights_only=True) for p, f in zip(PROBES, of_variant, strict=True)}
        for of_variant in files
    ]


def _wait(processes: Sequence[subprocess.Popen[bytes]], ranks: int, folder: Path) -> None:
    """Wait for all; when one fails the others, which wait for it, are ended."""
    waiting = dict(enumerate(processes))
    try:
        while waiting:
            for rank, process in list(waiting.items()):
                try:
                    code = process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
                del waiting[rank]
                if code:
                    log = folder / f"{ranks}-rank-{rank}.log"
                    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                    raise JobError(
                        f"parity: rank {rank} of {ranks} ended with exit code {code}: "
                        f"{said[-1] if said else 'it said nothing'}"
                    )
    finally:
        for process in waiting.values():
            process.kill()
            process.wait()


def _row(
    name: str,
    found: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Mapping[str, Any]],
    start: Mapping[str, torch.Tensor],
) -> Row:
    mine, theirs = found["sgd"], wanted["sgd"]
    gradients = {
        parameter: max(
            relative(a[parameter], b[parameter])
            for a, b in zip(mine["gradients"], theirs["gradients"], strict=True)
        )
        for parameter in start
    }
    updates = [
        _update(mine["weights"][n], theirs["weights"][n], begin) for n, begin in start.items()
    ]
    worst = max(gradients, key=lambda parameter: gradients[parameter])
    return Row(
        name,
        _furthest(mine["losses"], theirs["losses"]),
        gradients[worst],
        max(updates),
        _furthest(found["adamw"]["losses"], wanted["adamw"]["losses"]),
        worst,
    )


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """L2 norm of the difference over that of ``wanted``, with the floor."""
    floor = FLOOR / LIMITS["gradient"]
    return float((found - wanted).norm() / wanted.norm().clamp(min=floor))


def _update(found: torch.Tensor, wanted: torch.Tensor, start: torch.Tensor) -> float:
    """L2 norm of the difference over that of the change, without what fp32 cannot hold: each step
    rounds a weight to 24 bits, in both runs."""
    steps = PROBES["sgd"]["length"]["steps"]
    rounding = 2 * steps * 2.0**-24 * float(wanted.norm())
    off = max(0.0, float((found - wanted).norm()) - rounding)
    return off / max(float((wanted - start).norm()), FLOOR)


def _furthest(found: Sequence[float], wanted: Sequence[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, wanted, strict=True))
