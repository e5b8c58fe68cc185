"""What the page says: plain values, gathered from a run directory, rendered by the templates.

Text from outside stays raw `str` here. Only the templates show it, through the filters of
`curation.page.text`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from curation.page.thumbnails import Thumbnail
from trainer.report.charts import Chart


@dataclass(frozen=True)
class Tile:
    """One figure of the head of the page."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Alert:
    """A warning of a dataset, or what this page found (``found``)."""

    stage: str
    text: str
    found: bool = False
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """Names of the run: recipe, digest of its data, seed, when it began."""

    digest: str
    seed: str
    started: str


@dataclass(frozen=True)
class Curves:
    """Charts over steps; ``main`` is the loss. ``events``: name and sentence."""

    main: Chart
    others: tuple[Chart, ...]
    events: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """A share (of 1) with the limits of its 95 % interval if it has one, or a whole number, or an
    ``amount`` such as bits per byte."""

    mean: float
    low: float | None = None
    high: float | None = None
    whole: bool = False
    amount: bool = False


@dataclass(frozen=True)
class LanguageRow:
    """Scores of one language, by column; ``main`` is drawn."""

    key: str
    main: Score | None
    chance: float | None
    cells: Mapping[str, Score]


@dataclass(frozen=True)
class ClassRow:
    """A class with its mean accuracy over the languages that name it, and its English count."""

    name: str
    accuracy: float
    languages: int
    count: int | None
    tail: bool | None


@dataclass(frozen=True)
class HeadTailRow:
    """Accuracy in one language over classes of the tail and of the head, with intervals."""

    key: str
    tail: Score | None
    head: Score | None


@dataclass(frozen=True)
class Hit:
    """A picture that was found: what it shows, and whether it is right."""

    picture: Thumbnail
    label: str
    right: bool


@dataclass(frozen=True)
class Example:
    """A text and the pictures nearest to it, the nearest first."""

    language: str
    text: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class Evaluation:
    """One eval/NAME.json. ``full``: the value at the right end of the bars; ``what``: what a row is of."""

    name: str
    metric: str
    score: Score
    chance: float | None
    checkpoint: str
    settings: tuple[tuple[str, str], ...]
    drawn: str
    columns: tuple[str, ...]
    rows: tuple[LanguageRow, ...]
    full: float
    what: str = "Language"
    best: tuple[ClassRow, ...] = ()
    worst: tuple[ClassRow, ...] = ()
    classes: int = 0
    head_tail: tuple[HeadTailRow, ...] = ()
    head_tail_classes: tuple[int, int, int] = (0, 0, 0)
    threshold: int | None = None
    notes: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Speed:
    """Throughput: charts over steps, facts, and the batch as derived."""

    charts: tuple[Chart, ...]
    facts: tuple[tuple[str, str], ...]
    batch: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Stage:
    """A dataset of the lineage; without ``rows`` it is not at hand."""

    name: str
    digest: str
    rows: int | None
    schema: str
    seed: int | None
    command: str
    parents: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PinnedInput:
    """A file from outside that a dataset of the lineage was made from."""

    stage: str
    path: str
    bytes: int | None
    checksum: str


@dataclass(frozen=True)
class Origin:
    """How to make the run again, and what its data was made from, raw inputs first."""

    command: str
    config: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    stages: tuple[Stage, ...]
    lost: str
    data_commands: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The whole page."""

    title: str
    lede: str
    head: Head
    tiles: tuple[Tile, ...]
    warnings: tuple[Alert, ...]
    curves: Curves | None
    evaluations: tuple[Evaluation, ...]
    speed: Speed
    origin: Origin
    inputs: tuple[PinnedInput, ...]
    inputs_total: int
    licences: tuple[str, ...]
