"""What a user may say about an input of texts: its format, columns, borders and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from schemas.errors import UsageError

FORMATS = ("auto", "parquet", "jsonl", "text")
WHOLE, LINES, PARAGRAPHS = "file", "lines", "blank_lines"
"""Values of ``split_on`` that are words; any other is the separator itself."""


@dataclass(frozen=True)
class TextOptions:
    """How documents are read.

    ``text`` (or ``messages``), ``source`` and ``language`` are names of columns or JSON keys, ""
    for none; ``text`` "" is found by its usual names. ``split_on`` cuts plain text files into
    documents: ``file`` (one document), ``lines``, ``blank_lines``, or a separator as it stands in
    the file. ``max_document_bytes`` bounds a document as UTF-8, ``unit_bytes`` a unit of work;
    ``limit`` takes only the first records of each file.
    """

    format: str = "auto"
    text: str = ""
    messages: str = ""
    source: str = ""
    language: str = ""
    split_on: str = WHOLE
    max_document_bytes: int = 64 * 2**20
    unit_bytes: int = 256 * 2**20
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"format={self.format!r} is not one of {', '.join(FORMATS)}")
        if not self.split_on:
            raise UsageError(
                f"split_on= is empty: give {WHOLE}, {LINES}, {PARAGRAPHS} or the separator itself"
            )
        if self.text and self.messages:
            raise UsageError(
                f"columns.text={self.text} and columns.messages={self.messages}: give one of them"
            )
        if self.max_document_bytes > 2**30:
            raise UsageError(
                f"max_document_bytes={self.max_document_bytes}: documents of more than 1 GiB do not "
                f"fit in a table; give at most {2**30}"
            )

    @property
    def separator(self) -> bytes | None:
        """The bytes between two records of a plain text file; None for the whole file."""
        if self.split_on == WHOLE:
            return None
        return b"\n" if self.split_on in (LINES, PARAGRAPHS) else self.split_on.encode()

    @property
    def max_line_bytes(self) -> int:
        """Bytes of a line of JSON: escapes make it longer than its text, other keys too."""
        return 2 * self.max_document_bytes + 16 * 2**20

    def to_json(self) -> dict[str, Any]:
        """As JSON values; ``from_json`` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TextOptions:
        """Read what ``to_json`` wrote."""
        return cls(**raw)
