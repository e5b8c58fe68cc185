"""Throughput: how fast the run was, on what, and how its batch was split."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

from curation.page.numbers import whole
from schemas.errors import HeadraceError
from trainer.config import Length
from trainer.engine.metrics import duration
from trainer.engine.sizes import sizes
from trainer.report.curves import chart_of
from trainer.report.foreseen import beside_plan
from trainer.report.model import Speed
from trainer.report.record import History, Run, number


def speed(run: Run) -> Speed:
    """Charts of the rate, of MFU and host time, the machine, the settings that decide speed, the batch."""
    history = run.history
    steady = dataclasses.replace(history, steps=_steady(history))
    charts = tuple(
        chart_of(steady, key, title, unit)
        for key, title, unit in (
            ("samples_per_s", "Samples a second, all ranks", "samples/s"),
            ("tokens_per_s", "Tokens a second, all ranks", "tokens/s"),
            ("mfu", "Model FLOPs utilisation", "of the device's peak"),
            ("host_ms", "Time outside forward, backward and step", "ms a step"),
        )
        if steady.column(key)[0]
    )
    return Speed(charts, tuple(_facts(run, steady)), _batch(run))


def rate(run: Run, name: str = "samples_per_s") -> float | None:
    """Median of a rate since the last start that logged one, without its first line."""
    lines = _steady(run.history)
    starts = [int(event["step"]) for event in run.history.named("started", "continued")]
    since = max((start for start in starts if lines and start < lines[-1]["step"]), default=0)
    rates = [number(line.get(name)) for line in lines if line["step"] > since]
    known = [one for one in rates if one is not None]
    return statistics.median(known) if known else None


def _steady(history: History) -> tuple[Mapping[str, Any], ...]:
    """The lines without the first after each start, which has the start in it; all if none is left."""
    starts = {int(event["step"]) for event in history.named("started", "continued")} | {0}
    steps = [int(line["step"]) for line in history.steps]
    firsts = {next((step for step in steps if step > start), None) for start in starts}
    return tuple(line for line in history.steps if line["step"] not in firsts) or history.steps


def ranks(run: Run) -> list[int]:
    """Ranks of each start, in order; those of run.json if no start is written."""
    found = [
        e["ranks"] for e in run.history.named("started", "continued") if _count(e.get("ranks"))
    ]
    given = run.facts.get("ranks")
    return found or ([given] if isinstance(given, int) and _count(given) else [1])


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _facts(run: Run, steady: History) -> list[tuple[str, str]]:
    config, machine = run.config, run.part("environment")
    facts: list[tuple[str, str | None]] = []
    middle = rate(run)
    host = steady.column("host_ms")[1]
    facts.append(
        ("samples a second", f"{middle:,.1f} (median since the last start)" if middle else None)
    )
    if tokens := rate(run, "tokens_per_s"):
        facts.append(("tokens a second", f"{tokens:,.0f}, without padding"))
    if mfu := rate(run, "mfu"):
        facts.append(("MFU", f"{mfu:.3f} of {_peak(run)}"))
    facts.append(
        ("host time", f"{statistics.median(host):,.2f} ms a step (median)" if host else None)
    )
    facts += beside_plan(run, ranks(run)[-1], middle)
    facts.append(("time of training", duration(run.history.seconds) if run.history.steps else None))
    facts.append(("machine", _machine(machine)))
    several = list(dict.fromkeys(ranks(run)))
    facts.append(("ranks", ", then ".join(map(str, several))))
    facts.append(("precision", config.precision))
    facts.append(("ZeRO stage", str(config.zero)))
    facts.append(("loader threads a rank", str(config.loaders)))
    return [(name, value) for name, value in facts if value]


def _peak(run: Run) -> str:
    started = run.history.named("started", "continued")
    return str((started[-1] if started else {}).get("peak") or "the device's peak")


def _machine(machine: Mapping[str, Any]) -> str | None:
    host, cores = machine.get("host"), machine.get("cores")
    said = [str(host)] if host else []
    if _count(cores):
        said.append(f"{whole(float(str(cores)))} cores")
    return ", ".join(said) or None


def _batch(run: Run) -> tuple[tuple[str, str, str], ...]:
    """Name, value and origin of each size, as `trainer plan` derives them."""
    config = run.config
    known = total_steps(run)
    try:
        of = sizes(
            config.model_copy(update={"length": Length.model_validate({"steps": known or 1})}),
            ranks(run)[-1],
        )
    except (HeadraceError, ValueError):
        return ()
    rows = [
        ("samples a step", of.batch, "batch.size"),
        ("ranks", of.ranks, ""),
        ("samples a rank", of.per_rank, "batch.size / ranks"),
        ("samples a forward pass", of.micro, "batch.micro, at most a rank's"),
        ("forward passes a step and rank", of.micro_batches, ""),
    ]
    if sequence := config.sequence_length:
        rows.append(("tokens a step", of.batch * sequence, "batch.size × data.sequence_length"))
    if known:
        rows += [
            ("steps", of.steps, "length"),
            ("samples", of.steps * of.batch, "steps × batch.size"),
        ]
    return tuple((name, whole(value), origin) for name, value, origin in rows)


def total_steps(run: Run) -> int | None:
    """Steps of the whole run; None if only the data would tell (a length in epochs, not finished)."""
    length, size = run.config.length, run.config.batch.size
    if length.steps is not None:
        return length.steps
    if length.samples is not None:
        return max(1, length.samples // size)
    if length.tokens is not None and (sequence := run.config.sequence_length):
        return max(1, length.tokens // sequence // size)
    finished = run.history.named("finished")
    return int(finished[-1]["step"]) if finished else None


def samples_seen(run: Run) -> int:
    """Samples of the last logged step."""
    last = run.history.steps[-1] if run.history.steps else {}
    return round(number(last.get("samples")) or 0)
