"""What a user may say about an input: its format, which columns mean what, and bounds."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from curation.images import ImageLimits
from schemas.errors import UsageError

FORMATS = ("auto", "wat", "parquet", "jsonl", "webdataset", "folder")
TEXT_FORMATS = ("auto", "plain", "json", "list")
NONE = "none"
"""Value of a column option that switches an automatic choice off."""

TABLE_BYTES = 32 * 2**20
"""Bound of the tables that readers yield; one row may exceed it, two do not."""

TABLE_ROWS = 32_768


@dataclass(frozen=True)
class Columns:
    """Names of an input's columns; "" chooses by common names, ``none`` leaves the meaning out.

    ``text`` may be several columns separated by commas; the column name is then the text's key.
    ``text_format`` says how string columns hold texts: ``plain``, a ``json`` object of key to text
    (or array), or a ``list``; ``auto`` takes the column's type at its word.
    """

    url: str = ""
    text: str = ""
    image: str = ""
    id: str = ""
    score: str = ""
    sha256: str = ""
    text_format: str = "auto"

    @property
    def texts(self) -> tuple[str, ...]:
        """The text columns asked for."""
        return tuple(name.strip() for name in self.text.split(",") if name.strip())


@dataclass(frozen=True)
class IngestOptions:
    """Options of one ingest.

    ``max_record_bytes`` bounds a line, an envelope or a caption file; ``unit_bytes`` a unit of
    work; ``limit`` takes only the first records of each input.
    """

    format: str = "auto"
    columns: Columns = Columns()
    images: ImageLimits = field(default_factory=ImageLimits)
    max_record_bytes: int = 64 * 2**20
    unit_bytes: int = 256 * 2**20
    limit: int | None = None

    def __post_init__(self) -> None:
        _one_of("format", self.format, FORMATS)
        _one_of("columns.text_format", self.columns.text_format, TEXT_FORMATS)
        for name in ("max_record_bytes", "unit_bytes", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={getattr(self, name)}: it must be at least 1")

    def to_json(self) -> dict[str, Any]:
        """As JSON values; ``from_json`` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> IngestOptions:
        """Read nested mappings as ``to_json`` writes them. Raises UsageError for unknown keys."""
        values = dict(raw)
        for name, kind in (("columns", Columns), ("images", ImageLimits)):
            given = values.get(name)
            if isinstance(given, Mapping):
                _known(given, kind, f"{name}.")
                values[name] = kind(**given)
        _known(values, cls, "")
        return cls(**values)


def _known(given: Mapping[str, Any], kind: type, prefix: str) -> None:
    names = [f.name for f in fields(kind)]
    for key in given:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else ""
            known = ", ".join(prefix + name for name in names)
            raise UsageError(f"unknown option {prefix}{key}{hint} Known: {known}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        close = difflib.get_close_matches(value, allowed, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(f"{name}={value!r} is not one of {', '.join(allowed)}.{hint}")
