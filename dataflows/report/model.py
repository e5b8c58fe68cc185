"""What the page says: plain values, gathered from committed datasets, rendered by the template.

Text from the web stays raw `str` here. Only the template shows it, through the filters of `text`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from dataflows.report.fetching import Fetching
    from dataflows.report.texts import Texts


@dataclass(frozen=True)
class Tile:
    """One figure of the head of the page."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Alert:
    """A line of a manifest's `warnings`, or a fault that the report itself found (`found`).

    `details` are the lines of several languages that say the same, under one `text` that sums them
    up.
    """

    stage: str
    text: str
    found: bool = False
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """One line of a ledger other than in and out: kind, reason, its explanation, count."""

    kind: str
    reason: str
    explanation: str
    count: int


@dataclass(frozen=True)
class Flow:
    """What one stage did with one unit (record, text, image, entry).

    `balance` is what Ledger.check said: "" if counts and id sums add up, else its message.
    `joins` names the stage whose output this stage read, `joined` whether the counts agree; None if
    the stage read from outside.
    """

    stage: str
    unit: str
    entered: int
    out: int
    changes: tuple[Change, ...]
    balance: str
    sums_checked: bool
    joins: str | None = None
    joined: bool = True

    def total(self, kind: str) -> int:
        """Rows of one kind over all its reasons."""
        return sum(change.count for change in self.changes if change.kind == kind)

    @property
    def created(self) -> int:
        """Rows that the stage made."""
        return self.total("created")

    @property
    def available(self) -> int:
        """in + created: what the bars are a share of."""
        return self.entered + self.created

    @property
    def equation(self) -> str:
        """The conservation law with this stage's numbers."""
        left = [f"{self.entered:,} in"] if self.entered or not self.created else []
        left += [f"{self.created:,} created"] if self.created else []
        right = [f"{self.out:,} out"]
        for kind in ("rejected", "merged", "sampled_out"):
            count = self.total(kind)
            right += [f"{count:,} {kind.replace('_', ' ')}"] if count else []
        return f"{' + '.join(left)} = {' + '.join(right)}"


@dataclass(frozen=True)
class FallRow:
    """One line of the fall. `start` and `width` place its bar, in per cent of the widest."""

    label: str
    why: str
    stage: str
    kind: str
    sign: str
    count: int
    left: int
    share: float | None
    start: float
    width: float
    total: bool = False


@dataclass(frozen=True)
class Funnel:
    """The fall of one unit: from the start of the run to the head dataset, or of records before it."""

    unit: str
    rows: tuple[FallRow, ...]
    lede: str
    verdict: str
    good: bool


@dataclass(frozen=True)
class LanguageRow:
    """Texts of one metadata language at each step; None where the step is not part of the run."""

    key: str
    identified: int
    matched: int | None
    curated: int | None
    share_before: float
    share_after: float | None


@dataclass(frozen=True)
class Languages:
    """Languages before and after. `without` counts labels that have no metadata, largest first."""

    rows: tuple[LanguageRow, ...]
    without: tuple[tuple[str, int], ...]
    without_total: int
    identified_total: int
    labels: int
    matched_total: int | None
    curated_total: int | None
    after_name: str
    widest: float
    lede: str


@dataclass(frozen=True)
class BalanceRow:
    """One language of the table of thresholds (paper section 3.3, Algorithm 1)."""

    key: str
    entries: int | None
    hit: int
    matches: int
    t: float
    tail: float | None
    gap: float | None
    expected: float | None
    deviation: float | None
    drawn: int | None


@dataclass(frozen=True)
class Panel:
    """A language's rank-count curve and its most common and some rare entries."""

    key: str
    svg: Markup
    caption: str
    head: tuple[EntryRow, ...]
    tail: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class EntryRow:
    """One entry before and after the draw; `after` is counted or, from the sample, estimated."""

    text: str
    before: int
    after: float | None
    bar_before: float
    bar_after: float


@dataclass(frozen=True)
class Balance:
    """Head and tail. `after` names the line after the draw, if any; `after_note` its origin."""

    rows: tuple[BalanceRow, ...]
    panels: tuple[Panel, ...]
    after: str
    after_note: str
    lede: str
    note: str
    shared: bool


@dataclass(frozen=True)
class KnobRow:
    """The set that one p would give; `languages` counts those whose t is above 1."""

    p: float
    own: bool
    t_en: int | None
    expected: float
    low: float
    high: float
    english: float | None
    languages: int


@dataclass(frozen=True)
class Knob:
    """Several choices of p; `widest` scales the bars."""

    rows: tuple[KnobRow, ...]
    widest: float


@dataclass(frozen=True)
class Sample:
    """One pair. `picture` is a data: URI of a JPEG made here, never the bytes of the web."""

    pair_id: str
    key: str
    label: str
    caption: str
    url: str | None
    picture: str | None
    picture_note: str
    width: int
    height: int
    entries: tuple[tuple[str, bool], ...]
    entries_total: int
    keep_probability: float | None


@dataclass(frozen=True)
class LeftOut:
    """A matched pair that the draw did not keep: its number `u` was not below its probability."""

    caption: str
    label: str
    key: str
    keep_probability: float
    u: float


@dataclass(frozen=True)
class DeadRow:
    """One dead letter of a stage."""

    stage: str
    reason: str
    error: str
    source: str
    position: int


@dataclass(frozen=True)
class StageFacts:
    """Lineage of one committed dataset."""

    name: str
    schema: str
    digest: str
    rows: int
    bytes: int
    shards: int
    parents: tuple[tuple[str, str, bool], ...]
    config: tuple[tuple[str, str], ...]
    seed: int | None
    code: str
    hash_name: str
    libraries: tuple[tuple[str, str], ...]
    blobs: tuple[tuple[str, str, int], ...]
    run: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PinnedInput:
    """A file from outside, pinned by size and checksum at ingest."""

    stage: str
    path: str
    bytes: int | None
    checksum: str


@dataclass(frozen=True)
class Safety:
    """What was and was not removed; `own_filter`: a filter of the user's ran."""

    own_filter: bool
    score: str
    valid: str
    evaluation_url: str
    evaluation_hash: str
    generated: int


@dataclass(frozen=True)
class Report:
    """The whole page. Sections that a run has nothing for are None or empty and are left out."""

    title: str
    recipe: str
    head: StageFacts
    tiles: tuple[Tile, ...]
    lede: str
    warnings: tuple[Alert, ...]
    flows: tuple[Flow, ...]
    funnel: Funnel | None
    before: Funnel | None
    before_note: str
    languages: Languages | None
    balance: Balance | None
    knob: Knob | None
    samples: tuple[Sample, ...]
    samples_from: str
    left_out: tuple[LeftOut, ...]
    dead: tuple[DeadRow, ...]
    dead_total: int
    stages: tuple[StageFacts, ...]
    missing: tuple[str, ...]
    inputs: tuple[PinnedInput, ...]
    inputs_total: int
    licences: tuple[str, ...]
    commands: tuple[str, ...]
    safety: Safety | None
    cost: tuple[tuple[str, str], ...] = ()
    fetching: Fetching | None = None
    texts: Texts | None = None
