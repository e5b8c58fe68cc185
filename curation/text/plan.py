"""From pinned files to units of work: format, columns and parts, fixed before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.ingest.columns import is_string
from curation.ingest.detect import suffix_of
from curation.ingest.files import Damaged, File, beginning, compression, open_decoded, open_raw
from curation.ingest.jsonl import sample_keys
from curation.ingest.parquet import group_sizes, open_parquet
from curation.ingest.sources import Pinned
from curation.text.cutting import cuts_anywhere
from curation.text.options import TextOptions
from schemas.errors import InputError

TEXT_COLUMNS = ("text", "content", "document", "raw_content", "body")
"""Names by which the column of texts is chosen, best first, in any case."""

MESSAGE_COLUMNS = ("messages", "conversations", "conversation")
"""Usual names of a column of conversations; none is chosen without being named."""

_TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex", ".html", ".csv")
_HEAD = 64 * 1024


@dataclass(frozen=True)
class Columns:
    """The columns (or JSON keys) of one file; "" for what it does not have."""

    text: str = ""
    messages: str = ""
    source: str = ""
    language: str = ""

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        wanted = (self.text, self.messages, self.source, self.language)
        return list(dict.fromkeys(name for name in wanted if name))

    def __str__(self) -> str:
        return " ".join(f"columns.{name}={value}" for name, value in vars(self).items() if value)


@dataclass(frozen=True)
class TextUnit:
    """A file by its ordinal among the pins, and the part of it to read.

    ``part``: [first row group, end, first row] of Parquet; [first byte, end] of other files, the
    end null for all the rest.
    """

    file: int
    path: str
    source: str
    format: str
    how: str
    bytes: int
    stamp: str
    checksum: str
    size: int
    part: list[int | None]
    columns: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TextUnit:
        """Read what ``to_json`` wrote."""
        return cls(**raw)


def plan_texts(pinned: Pinned, names: Sequence[str], options: TextOptions) -> list[TextUnit]:
    """Units of pinned files in order; ``names`` are the files' sources.

    Raises InputError naming path and fix for unknown formats, damaged footers, missing columns.
    """
    units: list[TextUnit] = []
    for ordinal, (source, name) in enumerate(zip(pinned.sources, names, strict=True)):
        assert source.file is not None
        units += _units(ordinal, source.file, name, options, pinned.checksums[source.file.path])
    if not units:
        raise InputError(f"the input holds no rows: {', '.join(p.path for p in pinned.pins[:3])}")
    return units


def format_of(file: File, asked: str) -> str:
    """parquet, jsonl or text: by content, then by name. Raises InputError for what is neither."""
    with open_raw(file.path) as raw:
        head = raw.read(4)
    if head == b"PAR1":
        if asked not in ("auto", "parquet"):
            raise InputError(f"format={asked}, but {file.path} is Parquet: drop format=")
        return "parquet"
    name = file.path.lower()
    if asked == "parquet" or name.endswith(".parquet"):
        raise InputError(
            f"{file.path} does not begin with PAR1 (it begins with {head!r}): it is no Parquet "
            "file, or was cut or overwritten"
        )
    if asked != "auto":
        return asked
    stem = name
    for suffix in (".gz", ".zst", ".bz2", ".xz"):
        stem = stem.removesuffix(suffix)
    if suffix_of(stem, (".jsonl", ".ndjson")):
        return "jsonl"
    if suffix_of(stem, _TEXT_SUFFIXES):
        return "text"
    try:
        with open_decoded(file.path) as stream:
            content = beginning(stream, _HEAD)
    except Damaged as error:
        raise InputError(f"{file.path}: {error}; nothing in it can be read") from None
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "jsonl"
    raise InputError(
        f"{file.path} is of no known format (it begins with {content[:16]!r}): say which with "
        "format=parquet|jsonl|text"
    )


def _units(
    ordinal: int, file: File, source: str, options: TextOptions, checksum: str
) -> list[TextUnit]:
    form = format_of(file, options.format)
    whole = options.limit is not None

    def unit(how: str, size: int, part: list[int | None], columns: Columns) -> TextUnit:
        return TextUnit(
            ordinal,
            file.path,
            source,
            form,
            how,
            file.bytes,
            file.stamp,
            checksum,
            size,
            part,
            dict(vars(columns)),
        )

    if form == "parquet":
        with open_parquet(file.path) as parquet:
            columns = _choose_typed(parquet.schema_arrow, options, file.path)
            sizes = group_sizes(parquet, columns.names)
        limit = 2**62 if whole else options.unit_bytes
        return [
            unit(f"parquet ({columns})", sum(n for _, n in sizes[a:b]), [a, b, row], columns)
            for a, b, row in _ranges(sizes, limit)
        ]
    columns, how, separator = Columns(), f"text (split_on={options.split_on})", options.separator
    if form == "jsonl":
        columns = _choose(sample_keys(file.path, options.max_line_bytes), options, file.path)
        how, separator = f"jsonl ({columns})", b"\n"
    with open_raw(file.path) as raw:
        packed = bool(compression(raw.read(8)))
    if whole or packed or not cuts_anywhere(separator):
        return [unit(how, file.bytes, [0, None], columns)]
    count = max(1, -(-file.bytes // options.unit_bytes))
    bounds: list[int | None] = [file.bytes * i // count for i in range(count)]
    ends = [*bounds[1:], None]
    return [
        unit(how, file.bytes // count, [a, b], columns) for a, b in zip(bounds, ends, strict=True)
    ]


def _ranges(sizes: list[tuple[int, int]], limit: int) -> Iterator[tuple[int, int, int]]:
    """(first group, end, first row) of runs of row groups, each within the limit if it can be."""
    first, row, rows, total = 0, 0, 0, 0
    for group, (count, size) in enumerate(sizes):
        if rows and total + size > limit:
            yield first, group, row
            first, row, rows, total = group, row + rows, 0, 0
        rows, total = rows + count, total + size
    if rows:
        yield first, len(sizes), row


def _choose(names: Sequence[str], options: TextOptions, path: str) -> Columns:
    def given(meaning: str, name: str) -> str:
        if name and name not in names:
            raise InputError(
                f"columns.{meaning}={name}: {path} has no such column. It has: {', '.join(names[:40])}"
            )
        return name

    source, language = given("source", options.source), given("language", options.language)
    if options.messages:
        return Columns("", given("messages", options.messages), source, language)
    text = given("text", options.text)
    if not text:
        lower = {name.lower(): name for name in reversed(names)}
        text = next((lower[name] for name in TEXT_COLUMNS if name in lower), "")
    if not text:
        raise InputError(
            f"{path} has no column that is known to hold texts ({', '.join(TEXT_COLUMNS)}). It has: "
            f"{', '.join(names[:40])}. Name yours with {_fix(names)}"
        )
    return Columns(text, "", source, language)


def _fix(names: Sequence[str]) -> str:
    """The settings for a file without a column of texts: conversations are rendered."""
    for name in names:
        if name.lower() in MESSAGE_COLUMNS:
            return (
                f"columns.messages={name} chat_template=tokenizer (or a Jinja file) if it holds "
                "conversations, else with columns.text=NAME"
            )
    return "columns.text=NAME"


def _choose_typed(schema: pa.Schema, options: TextOptions, path: str) -> Columns:
    columns = _choose(schema.names, options, path)
    for meaning in ("text", "source", "language"):
        name = getattr(columns, meaning)
        if name and not is_string(schema.field(name).type):
            raise InputError(
                f"{path}: columns.{meaning}={name} is {schema.field(name).type}, expected a string"
            )
    return columns
