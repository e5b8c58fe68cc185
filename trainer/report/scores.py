"""Scores: each eval/NAME.json as a table by language, task or model, its classes, its head against its
tail."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from curation.page.numbers import percent, whole
from trainer.evaluation import registry
from trainer.evaluation.intervals import wilson
from trainer.report.model import ClassRow, Evaluation, HeadTailRow, LanguageRow, Score
from trainer.report.record import number

SHOWN_CLASSES = 10
ENGLISH = "en"


def evaluation(name: str, result: Mapping[str, Any], latest: str) -> Evaluation:
    """What the page says of one result. ``latest``: the run's newest checkpoint, "" if unknown."""
    head = result["headline"]
    rows, columns, drawn = _rows(result)
    chance = number(head.get("chance"))
    ends = [row.main.high or row.main.mean for row in rows if row.main]
    ends += [row.chance for row in rows if row.chance is not None]
    classes = _classes(result)
    half = max(1, len(classes) // 2)
    shown = min(SHOWN_CLASSES, half)
    pairs, counts = _head_tail(result)
    model = result.get("model")
    checkpoint = str(model.get("checkpoint") or "") if isinstance(model, Mapping) else ""
    settings = result.get("settings")
    return Evaluation(
        name=name,
        metric=str(head.get("metric", "score")),
        score=_score(head, head.get("metric") in _amounts(result)) or Score(0.0),
        chance=chance,
        checkpoint=checkpoint,
        settings=tuple(
            (str(key), json.dumps(value, ensure_ascii=False))
            for key, value in (settings.items() if isinstance(settings, Mapping) else ())
            if value is not None
        ),
        drawn=drawn,
        columns=columns,
        rows=rows,
        full=max([*ends, chance or 0.0, 1e-9]),
        what="" if "rows" in result else "Language",
        best=tuple(classes[:shown]),
        worst=tuple(reversed(classes[-shown:])) if len(classes) > 1 else (),
        classes=len(classes),
        head_tail=pairs,
        head_tail_classes=counts,
        threshold=result["t"] if isinstance(result.get("t"), int) else None,
        notes=tuple(_notes(result, checkpoint, latest)),
    )


def above_chance(score: Score, chance: float | None) -> bool | None:
    """Whether the whole interval lies above chance; None if either is unknown."""
    if chance is None or score.low is None:
        return None
    return score.low > chance


def shown(score: Score) -> str:
    """A score's value in words."""
    return _value(score, score.mean)


def limits(score: Score) -> str:
    """Its 95 % interval in words, "" without one."""
    if score.low is None or score.high is None:
        return ""
    return f"{_value(score, score.low)} to {_value(score, score.high)}"


def _value(score: Score, value: float) -> str:
    if score.whole:
        return whole(value)
    if not score.amount:
        return percent(value)
    return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.1f}"


def _amounts(result: Mapping[str, Any]) -> list[str]:
    found = result.get("amounts")
    return [str(name) for name in found] if isinstance(found, list) else []


def _score(value: Any, amount: bool = False) -> Score | None:
    """A score of an estimate or a number; None for what is neither."""
    if isinstance(value, Mapping):
        mean = number(value.get("mean"))
        if mean is None:
            return None
        low, high = number(value.get("low")), number(value.get("high"))
        return Score(mean, low, high, amount=amount)
    found = number(value)
    if found is None:
        return None
    return Score(found, whole=isinstance(value, int), amount=amount)


def _rows(result: Mapping[str, Any]) -> tuple[tuple[LanguageRow, ...], tuple[str, ...], str]:
    """Rows by falling score, `all` first, in their own order if the score is an amount; the columns; and
    the column that is drawn: the first with an interval."""
    amounts = _amounts(result)
    cells: dict[str, dict[str, Score]] = {}
    drawn = ""
    for language, scores in registry.rows(result).items():
        cells[language] = {}
        for column, value in registry.flat(scores):
            if (score := _score(value, column in amounts)) is None:
                continue
            cells[language][column] = score
            if not drawn and score.low is not None:
                drawn = column
    head = number(result["headline"].get("chance"))
    rows = []
    for language, found in cells.items():
        own = found.pop("chance", None)
        rows.append(LanguageRow(language, found.get(drawn), own.mean if own else head, found))
    if drawn not in amounts:
        rows.sort(
            key=lambda row: (row.key != "all", -(row.main.mean if row.main else -1.0), row.key)
        )
    whole = {column: score.whole for row in rows for column, score in row.cells.items()}
    columns = sorted(whole, key=lambda column: whole[column])  # scores first, then sizes
    return tuple(rows), tuple(columns), drawn


def _per_class(scores: Mapping[str, Any], count: int) -> list[float | None] | None:
    found = scores.get("per_class")
    if not isinstance(found, list) or len(found) != count:
        return None
    return [number(value) for value in found]


def _list(result: Mapping[str, Any], key: str, count: int) -> list[Any] | None:
    found = result.get(key)
    return found if isinstance(found, list) and len(found) == count else None


def _classes(result: Mapping[str, Any]) -> list[ClassRow]:
    """All classes by falling mean accuracy over the languages that name them."""
    names = result.get("classes")
    if not isinstance(names, list) or not names:
        return []
    each = [_per_class(scores, len(names)) for scores in registry.rows(result).values()]
    columns = [one for one in each if one is not None]
    counts, tail = _list(result, "english_count", len(names)), _list(result, "tail", len(names))
    found = []
    for place, name in enumerate(names):
        values = [value for one in columns if (value := one[place]) is not None]
        if not values:
            continue
        count = counts[place] if counts else None
        found.append(
            ClassRow(
                str(name),
                sum(values) / len(values),
                len(values),
                count if isinstance(count, int) else None,
                bool(tail[place]) if tail else None,
            )
        )
    return sorted(found, key=lambda row: (-row.accuracy, row.name))


def _head_tail(
    result: Mapping[str, Any],
) -> tuple[tuple[HeadTailRow, ...], tuple[int, int, int]]:
    """Accuracy over tail and head by language, and the classes of tail, head and neither.

    A class that no text of the pool named has no count and belongs to neither.
    """
    names = result.get("classes")
    images = result.get("images_per_class")
    if not isinstance(names, list) or not isinstance(images, int) or images < 1:
        return (), (0, 0, 0)
    tail, counts = _list(result, "tail", len(names)), _list(result, "english_count", len(names))
    if tail is None or counts is None:
        return (), (0, 0, 0)
    known = [count is not None for count in counts]
    sides = (
        [place for place in range(len(names)) if tail[place]],
        [place for place in range(len(names)) if known[place] and not tail[place]],
    )
    rows = []
    for language, scores in registry.rows(result).items():
        accuracies = _per_class(scores, len(names))
        if accuracies is None:
            continue
        pair = [_mean([accuracies[place] for place in side], images) for side in sides]
        rows.append(HeadTailRow(language, *pair))
    order = sorted(rows, key=lambda row: (row.key != ENGLISH, row.key))
    return tuple(order), (len(sides[0]), len(sides[1]), known.count(False))


def _mean(values: Sequence[float | None], images: int) -> Score | None:
    """The mean over classes of equally many images, with the interval of all these images."""
    kept = [min(1.0, max(0.0, value)) for value in values if value is not None]
    if not kept:
        return None
    mean, n = sum(kept) / len(kept), len(kept) * images
    return Score(mean, *wilson(mean * n, n))


def _notes(result: Mapping[str, Any], checkpoint: str, latest: str) -> list[str]:
    notes = []
    if checkpoint and latest and checkpoint != latest:
        notes.append(
            f"This is of {checkpoint}; the run has gone on to {latest}. Evaluate again for its score."
        )
    notes += [str(note) for note in result.get("notes") or ()]
    few = result.get("few")
    if isinstance(few, Mapping) and few:
        notes.append("Too few images to score: " + ", ".join(f"{k} ({v})" for k, v in few.items()))
    if unreadable := number(result.get("unreadable")):
        notes.append(f"{unreadable:,.0f} images could not be read and are left out.")
    other = result.get("against")
    if isinstance(other, Mapping) and isinstance(other.get("languages"), Mapping):
        said = []
        for language, value in other["languages"].items():
            if (score := _score(value)) and score.low is not None and score.high is not None:
                said.append(f"{language} {score.mean:+.4f} [{score.low:+.4f}, {score.high:+.4f}]")
        notes.append(
            f"Accuracy minus that of {other.get('place')}, paired by class: {', '.join(said)}"
        )
    if interval := result.get("interval"):
        notes.append(f"Intervals: {interval}.")
    return notes
