"""How far off the plan was: memory and time of a run beside `trainer plan`'s predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.errors import HeadraceError
from trainer.report.record import Run, number

_GIB, _MIB = 1 << 30, 1 << 20


def beside_plan(run: Run, ranks: int, samples_per_s: float | None) -> Iterator[tuple[str, str]]:
    """Yield name and sentence: measured, and planned where the run's data and model can be read.

    Memory is known of a run that has finished. Time is planned for known GPUs only.
    """
    finished = run.history.named("finished")
    took = number(finished[-1].get("memory")) if finished else None
    if took is None:
        return
    device = _device(run)
    found = _planned(run, ranks, device)
    said = _size(took)
    if found is not None and (planned := found["memory"][str(run.config.zero)].get("total")):
        said += f", {_beside(took, planned, _size(planned))}"
    if device is None:
        said += "; on a CPU all that the process grew by, libraries too, which are not planned"
    yield "memory of a rank", said
    time = (found or {}).get("time") or {}
    if samples_per_s and (planned := time.get("samples_per_s")):
        yield "rate", _beside(samples_per_s, planned, f"{planned:,.1f} samples/s")


def _beside(measured: float, planned: float, shown: str) -> str:
    return f"planned {shown} ({measured / planned - 1:+.0%} measured)"


def _size(count: float) -> str:
    return f"{count / _GIB:.2f} GiB" if count >= _GIB else f"{count / _MIB:,.0f} MiB"


def _device(run: Run) -> str | None:
    """The name by which plans know the run's GPU, if it told one."""
    from trainer.launching import devices

    started = run.history.named("started", "continued")
    return devices.recognised(str(started[-1].get("peak", ""))) if started else None


def _planned(run: Run, ranks: int, device: str | None) -> dict[str, Any] | None:
    """What a plan says of the run now; None if its parts cannot be made here."""
    from trainer.launching.outline import outline, sizes_of
    from trainer.launching.predicted import prediction

    try:
        parts = outline(run.config)
        of = sizes_of(run.config, ranks, parts)
        return prediction(run.config, parts, of, ranks=ranks, device=device)
    except (HeadraceError, ValueError, OSError):
        return None
