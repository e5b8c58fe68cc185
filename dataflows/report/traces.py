"""What became of an image and its texts: the lines that `why` prints."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.ledger import Ledger
from schemas.reasons import REASONS

KEPT = "kept"


@dataclass
class TextTrace:
    """One text: what each stage did, in order; the verdict is `kept`, a reason, or where the run ends."""

    text: str
    key: str
    pair: bytes | None = None
    url: str | None = None
    steps: list[tuple[str, str]] = field(default_factory=list)
    verdict: str = ""

    def note(self, stage: str, line: str) -> None:
        """Add a line of a stage."""
        self.steps.append((stage, line))

    def reject(self, stage: str, reason: str, detail: str = "") -> None:
        """Add the last line, and the verdict."""
        self.note(stage, f"{REASONS[reason]}{': ' + detail if detail else ''} [{reason}]")
        self.verdict = f"not kept: {reason} ({stage})"


@dataclass(frozen=True)
class Refused:
    """A record that ingest rejected: its place in the input (`path`: the image's name there), and what
    its dead letter says."""

    stage: str
    file: str
    position: int
    reason: str
    error: str
    url: str | None = None
    path: str | None = None
    texts: tuple[str, ...] = ()

    def steps(self) -> list[tuple[str, str]]:
        """(stage, line) as of a text."""
        why = f"{REASONS[self.reason]}{': ' + self.error if self.error else ''} [{self.reason}]"
        place = f"{self.file}, record {self.position}{f', {self.path}' if self.path else ''}"
        return [(self.stage, place), (self.stage, why)]

    @property
    def verdict(self) -> str:
        """As of a text."""
        return f"not kept: {self.reason} ({self.stage})"


@dataclass
class ImageTrace:
    """An image with its texts, and records of it that ingest rejected; `notes` say what could not be
    looked at."""

    image: bytes
    texts: list[TextTrace] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def reason(ledger: Ledger) -> str:
    """The reason for which a step rejected its one row; empty if it did not."""
    rows = [row for row in ledger.rows() if row["kind"] == "rejected" and row["count"]]
    return str(rows[0]["reason"]) if rows else ""
