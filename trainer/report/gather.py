"""All facts of the page from a run directory."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

from curation.page.numbers import percent, whole
from schemas.errors import HeadraceError
from trainer.engine import checkpoint
from trainer.engine.checkpoint_place import checkpoints
from trainer.report import curves, origin, speed
from trainer.report.examples import examples
from trainer.report.model import Evaluation, Head, Report, Tile
from trainer.report.record import Run, number
from trainer.report.scores import above_chance, evaluation, limits, shown


def gather(run: Run) -> Report:
    """Read what the page shows. Costs a picture for each retrieval example, a manifest for each
    dataset of the lineage."""
    line = origin.lineage(run)
    latest = _latest(run)
    evaluations = tuple(
        dataclasses.replace(evaluation(name, result, latest), examples=examples(result))
        for name, result in run.evaluations.items()
    )
    data, facts = run.part("data"), run.facts
    pinned, total = origin.inputs(line)
    return Report(
        title=str(facts.get("recipe") or run.config.recipe),
        lede=_lede(run),
        head=Head(
            str(data.get("digest", "unknown")),
            str(facts.get("seed", run.config.seed)),
            _when(facts.get("started")),
        ),
        tiles=tuple(_tiles(run, evaluations)),
        warnings=origin.warnings(run, line),
        curves=curves.curves(run),
        evaluations=evaluations,
        speed=speed.speed(run),
        origin=origin.origin(run, line),
        inputs=pinned,
        inputs_total=total,
        licences=origin.licences(line),
    )


def _when(value: Any) -> str:
    """A time as a reader wants it; as it is if it is none."""
    try:
        return f"{datetime.fromisoformat(str(value)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return str(value or "")


def _latest(run: Run) -> str:
    try:
        return checkpoint.latest(checkpoints(run.config, run.place)) or ""
    except (HeadraceError, OSError, ValueError):
        return ""


def _lede(run: Run) -> str:
    """How far the run is, in a sentence."""
    total, history = speed.total_steps(run), run.history
    of = f" of {total:,}" if total else ""
    if not history.steps:
        return "The run has begun; no step is logged yet."
    done = int(history.steps[-1]["step"])
    if history.named("finished"):
        return f"The run is finished: {done:,} steps."
    saved = history.named("saved")
    kept = f"saved last at step {int(saved[-1]['step']):,}" if saved else "nothing saved yet"
    return f"The run is not finished: step {done:,}{of} is the last that is logged, {kept}."


def _tiles(run: Run, evaluations: tuple[Evaluation, ...]) -> list[Tile]:
    tiles = []
    loss, level = curves.final_loss(run.history), curves.level(run)
    if loss is not None:
        known = f"{level.label} = {level.value:.3f}" if level else ""
        done = bool(run.history.named("finished"))
        tiles.append(Tile(f"{loss:.4f}", "final loss" if done else "loss so far", known))
    for one in evaluations:
        tiles.append(Tile(shown(one.score), one.metric, _verdict(one)))
    if not evaluations:
        tiles.append(Tile("none yet", "score", "trainer eval gives one"))
    name = "tokens" if run.history.column("tokens_per_s")[0] else "samples"
    if middle := speed.rate(run, f"{name}_per_s"):
        value = whole(middle) if middle >= 1000 else f"{middle:,.1f}"
        tiles.append(Tile(value, f"{name} a second", "median since the last start"))
    last = run.history.steps[-1] if run.history.steps else {}
    epoch = number(last.get("epoch"))
    note = f"{epoch:.2f} epochs" if epoch is not None else ""
    seen = speed.samples_seen(run)
    if sequence := run.config.sequence_length:
        tiles.append(Tile(whole(seen * sequence), "tokens seen", note))
    else:
        tiles.append(Tile(whole(seen), "samples seen", note))
    if parameters := number(run.facts.get("parameters")):
        tiles.append(Tile(whole(parameters), "parameters"))
    return tiles


def _verdict(one: Evaluation) -> str:
    """Interval, chance and how they lie to each other."""
    said = []
    if interval := limits(one.score):
        said.append(f"95 %: {interval}")
    if one.chance is not None:
        said.append(f"chance {percent(one.chance)}")
    above = above_chance(one.score, one.chance)
    if above is not None:
        said.append("above chance" if above else "not above chance")
    return "; ".join(said)
