"""Charts of metrics.jsonl, and what the run tells of itself in events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from schemas.errors import UsageError
from trainer.config import RunConfig, part
from trainer.report.charts import POINTS, STYLES, Chart, Level, Line, Mark
from trainer.report.model import Curves
from trainer.report.record import History, Run

_NARROW_POINTS = 140
_REASONS = 8


def curves(run: Run) -> Curves | None:
    """The loss, its components, learning rate and gradient norm over steps; None without a step."""
    history = run.history
    steps, losses = history.column("loss")
    if not steps:
        return None
    marks = tuple(
        Mark(int(event["step"]), str(event["event"]))
        for event in history.named("continued", "saved", "replaced", "left_out")
    )
    line = Line.of("loss", steps, losses, POINTS)
    main = Chart("loss", "Loss over steps", "loss", (line,), _level(run.config), marks)
    others = []
    components = history.components()
    if len(components) > 1:
        for number in range(0, len(components), len(STYLES)):
            names = components[number : number + len(STYLES)]
            lines = tuple(Line.of(n, *history.column(n), _NARROW_POINTS) for n in names)
            others.append(Chart(f"components-{number}", "Components", "mean of a unit", lines))
    for key, title, unit in (
        ("lr", "Learning rate", "learning rate"),
        ("grad_norm", "Gradient norm, before clipping", "L2 norm"),
    ):
        if history.column(key)[0]:
            others.append(chart_of(history, key, title, unit))
    return Curves(main, tuple(others), _events(history), _notes(history, line, losses))


def chart_of(history: History, key: str, title: str, unit: str) -> Chart:
    """One value of the lines over steps."""
    line = Line.of(title, *history.column(key), _NARROW_POINTS)
    return Chart(key.replace("_", "-"), title, unit, (line,))


def final_loss(history: History) -> float | None:
    """The last loss that was logged."""
    losses = history.column("loss")[1]
    return losses[-1] if losses else None


def _level(config: RunConfig) -> Level | None:
    """What the objective says a model that knows nothing has for a loss, if it says so."""
    try:
        module, _ = part("objective", config.objective)
    except UsageError:
        return None  # of another version, which this page need not know
    uninformed = getattr(module, "uninformed", None)
    found = uninformed(config) if uninformed else None
    return Level(*found) if found else None


def level(run: Run) -> Level | None:
    """The loss of a model that knows nothing, where the objective names it."""
    return _level(run.config)


def _events(history: History) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for event in history.named("started", "continued"):
        ranks = event.get("ranks")
        on = f" on {ranks} rank{'s' if ranks != 1 else ''}" if isinstance(ranks, int) else ""
        found.append((str(event["event"]), f"at step {event['step']:,}{on}"))
    if saved := history.named("saved"):
        found.append(("saved", f"{_times(len(saved))}, last at step {saved[-1]['step']:,}"))
    if replaced := history.named("replaced"):
        found.append(("replaced", _replaced(replaced)))
    if left_out := history.named("left_out"):
        found.append(("left out", _left_out(left_out)))
    found += [("finished", f"at step {e['step']:,}") for e in history.named("finished")]
    return tuple(found)


def _replaced(events: list[Mapping[str, Any]]) -> str:
    reasons = Counter(str(event.get("reason", "unknown")) for event in events)
    shown = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(_REASONS))
    more = f" and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
    samples = "samples" if len(events) > 1 else "sample"
    return f"{len(events):,} {samples} whose image was bad, by another each: {shown}{more}"


def _left_out(events: list[Mapping[str, Any]]) -> str:
    """Which steps the run made no use of, and why; the last few."""
    said = []
    for event in events[-_REASONS:]:
        first, last = event.get("first"), event["step"]
        several = isinstance(first, int) and first != last
        steps = f"steps {first:,} to {last:,}" if several else f"step {last:,}"
        said.append(f"{steps} ({event.get('fault', 'a fault')})")
    more = f"; and {len(events) - _REASONS} more before" if len(events) > _REASONS else ""
    return f"{'; '.join(said)}{more}; faults/ names the samples"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _notes(history: History, line: Line, losses: list[float]) -> tuple[str, ...]:
    notes = []
    if line.each > 1:
        notes.append(
            f"Each point is the mean of {line.each:,} logged values; the band goes from their least "
            "to their largest."
        )
    if missing := len(history.steps) - len(losses):
        notes.append(f"{missing:,} lines have no finite loss and are not drawn.")
    if history.superseded:
        notes.append(
            f"{history.superseded:,} logged steps were made again after a restart; the later count."
        )
    if history.unreadable:
        notes.append(f"{history.unreadable:,} lines of metrics.jsonl cannot be read.")
    return tuple(notes)
