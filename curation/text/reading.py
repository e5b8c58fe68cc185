"""Reading a unit: from pinned bytes to tables of raw documents, what cannot be read set apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.ingest.files import open_decoded, open_raw
from curation.ingest.jsonl import json_type, parse_json
from curation.ingest.options import TABLE_BYTES, TABLE_ROWS
from curation.ingest.parquet import group_sizes, open_parquet
from curation.ingest.texts import as_binary
from curation.text.cutting import KEPT_OF_LONG, Piece, lead, paragraphs, pieces
from curation.text.options import LINES, PARAGRAPHS, TextOptions
from curation.text.plan import Columns, TextUnit
from schemas.errors import InputError

_FIELDS: list[Any] = [
    pa.field("position", pa.int64()),  # row of a Parquet file, else first byte of the record
    pa.field("text", pa.binary()),
    pa.field("source", pa.binary()),
    pa.field("language", pa.binary()),
    pa.field("raw", pa.binary()),  # of records that could not be parsed: the bytes as found
]
RAW = pa.schema(_FIELDS)
"""A document before any check: also the schema of the rows in the dead letters of `documents`."""

BOM = b"\xef\xbb\xbf"

Render = Callable[[Any], str]
"""Messages of a conversation to its text. Raises ValueError for what it cannot render."""


@dataclass
class Bad:
    """A piece of input that is no document: ``count`` records of the file, as far as one can tell."""

    position: int
    reason: str
    error: str
    raw: bytes = b""
    count: int = 1


@dataclass
class RawTexts:
    """RAW rows in the order of the file, and what could not be read."""

    table: pa.Table
    bad: list[Bad] = field(default_factory=list)


class _Builder:
    """Rows until a table is full."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, bytes | None, bytes | None, bytes | None]] = []
        self._bad: list[Bad] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows) + len(self._bad)

    def full(self, more: int) -> bool:
        """Whether ``more`` bytes should go to another table."""
        return len(self) > 0 and (self._bytes + more > TABLE_BYTES or len(self) >= TABLE_ROWS)

    def add(
        self,
        position: int,
        text: bytes | None,
        source: bytes | None = None,
        language: bytes | None = None,
    ) -> None:
        self._rows.append((position, text, source, language))
        self._bytes += 64 + len(text or b"")

    def refuse(self, bad: Bad) -> None:
        self._bad.append(bad)
        self._bytes += 64 + len(bad.raw)

    def take(self) -> RawTexts:
        columns = list(zip(*self._rows, strict=True)) or [(), (), (), ()]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, RAW, strict=False)]
        arrays.append(pa.nulls(len(self._rows), pa.binary()))
        raw = RawTexts(pa.table(arrays, schema=RAW), self._bad)
        self._rows, self._bad, self._bytes = [], [], 0
        return raw


def raw_texts(
    unit: TextUnit, options: TextOptions, render: Render | None = None
) -> Iterator[RawTexts]:
    """Tables of at most 32 MiB (or one document) of a unit, in the order of the file."""
    if unit.format == "parquet":
        tables = _read_parquet(unit, render)
        return tables if options.limit is None else _first(tables, options.limit)
    return _read_stream(unit, options, render)


def _first(tables: Iterator[RawTexts], limit: int) -> Iterator[RawTexts]:
    """What lies before row ``limit`` of the file."""
    for raw in tables:
        kept = int((raw.table["position"].to_numpy() < limit).sum())  # positions ascend
        bad = [b for b in raw.bad if b.position < limit]
        for piece in bad:
            piece.count = min(piece.count, limit - piece.position)
        yield RawTexts(raw.table.slice(0, kept), bad)
        if kept < raw.table.num_rows or len(bad) < len(raw.bad):
            return


def _read_stream(unit: TextUnit, options: TextOptions, render: Render | None) -> Iterator[RawTexts]:
    builder = _Builder()
    columns = Columns(**unit.columns)
    taken = 0
    with open_decoded(unit.path) as stream:
        for piece in _pieces(unit, options, stream):
            if options.limit is not None and taken == options.limit:
                break
            taken += 1
            if builder.full(piece.length):
                yield builder.take()
            if piece.error:
                lost = f"{piece.error}; the record at byte {piece.offset} and all after it are lost"
                builder.refuse(Bad(piece.offset, "bad_record", lost, piece.data[:KEPT_OF_LONG]))
            elif unit.format == "jsonl":
                _add_line(builder, piece, columns, options, render)
            else:
                _add_text(builder, piece, options)
    if len(builder):
        yield builder.take()


def _pieces(unit: TextUnit, options: TextOptions, stream: Any) -> Iterator[Piece]:
    """The records of the unit's part; blank lines are none."""
    start, end = unit.part[0] or 0, unit.part[1]
    jsonl = unit.format == "jsonl"
    separator = b"\n" if jsonl else options.separator
    limit = options.max_line_bytes if jsonl else options.max_document_bytes
    if start:  # only files that are not compressed are cut
        stream.close()
        stream = open_raw(unit.path)
        stream.seek(lead(separator, start))
    if not jsonl and options.split_on == PARAGRAPHS:
        yield from paragraphs(pieces(stream, separator, limit, start), limit, start, end)
        return
    if separator is None:
        # A file without a byte is a document too, which is counted as empty.
        yield from itertools.chain(
            [next(whole := pieces(stream, separator, limit), Piece(0, b"", 0))], whole
        )
        return
    for piece in pieces(stream, separator, limit, start, end):
        if (jsonl or options.split_on == LINES) and not piece.error and not piece.data.strip():
            continue
        yield piece


def _add_text(builder: _Builder, piece: Piece, options: TextOptions) -> None:
    if piece.length > options.max_document_bytes:
        return builder.refuse(_too_long(piece, options.max_document_bytes))
    text = piece.data.removeprefix(BOM) if piece.offset == 0 else piece.data
    if options.split_on == LINES:
        text = text.removesuffix(b"\r")
    return builder.add(piece.offset, text)


def _too_long(piece: Piece, limit: int) -> Bad:
    error = f"the document at byte {piece.offset} has {piece.length} bytes, limit {limit}"
    return Bad(piece.offset, "document_too_long", error, piece.data[:KEPT_OF_LONG])


def _add_line(
    builder: _Builder, piece: Piece, columns: Columns, options: TextOptions, render: Render | None
) -> None:
    def refuse(reason: str, why: str) -> None:
        error = f"the line at byte {piece.offset} {why}"
        builder.refuse(Bad(piece.offset, reason, error, piece.data[:KEPT_OF_LONG]))

    if piece.length > options.max_line_bytes:
        return refuse(
            "document_too_long", f"has {piece.length} bytes, limit {options.max_line_bytes}"
        )
    data = piece.data.removeprefix(BOM) if piece.offset == 0 else piece.data
    try:
        value = parse_json(data)
    except ValueError as error:
        try:
            data.decode()
        except UnicodeDecodeError as fault:
            return refuse("bad_utf8", f"is not valid UTF-8 ({fault.reason} at {fault.start})")
        return refuse("bad_record", f"is not valid JSON ({error})")
    if not isinstance(value, dict):
        return refuse("bad_record", f"is JSON {json_type(value)}, not an object")
    try:
        text, source, language = (
            _bytes(value.get(name), name) if name else None
            for name in (columns.text, columns.source, columns.language)
        )
    except ValueError as error:
        return refuse("bad_record", str(error))
    if columns.messages and render is not None:
        try:
            text = render(value.get(columns.messages)).encode("utf-8", "surrogatepass")
        except ValueError as error:
            return refuse("bad_messages", f"has messages that cannot be rendered: {error}")
    return builder.add(piece.offset, text, source, language)


def _bytes(value: object, name: str) -> bytes | None:
    if value is None or isinstance(value, str):
        return None if value is None else value.encode("utf-8", "surrogatepass")
    raise ValueError(f"has {value!r:.80} in {name!r}, not a string")


def _read_parquet(unit: TextUnit, render: Render | None) -> Iterator[RawTexts]:
    """What cannot be decoded costs the rest of its row group, never more."""
    first, end, row = (int(part or 0) for part in unit.part)
    columns = Columns(**unit.columns)
    with open_parquet(unit.path) as file:
        sizes = group_sizes(file, columns.names)
        for group in range(first, end):
            rows, size = sizes[group]
            yield from _read_group(file, unit.path, columns, render, group, rows, size, row)
            row += rows


def _read_group(
    file: pq.ParquetFile,
    path: str,
    columns: Columns,
    render: Render | None,
    group: int,
    rows: int,
    size: int,
    first: int,
) -> Iterator[RawTexts]:
    batch_rows = max(16, min(TABLE_ROWS, TABLE_BYTES // 2 // max(1, size // max(rows, 1))))
    done = 0
    try:
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns.names):
            # A footer that promises fewer rows than the pages hold does not get to double them.
            batch = batch.slice(0, min(batch.num_rows, rows - done))
            for part in _bounded(batch):
                yield _of_batch(part, columns, render, first + done)
                done += part.num_rows
    except (pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
        raise InputError(f"{path}: row group {group} cannot be read: {error}") from None
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield _lost(group, first + done, rows - done, str(error).splitlines()[0])
        return
    if done < rows:
        yield _lost(group, first + done, rows - done, f"its pages hold {done} of {rows} rows")


def _lost(group: int, first: int, count: int, why: str) -> RawTexts:
    error = f"rows {first} to {first + count - 1} of row group {group} cannot be read: {why}"
    return RawTexts(RAW.empty_table(), [Bad(first, "bad_parquet_row", error, count=count)])


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows <= 1 or batch.nbytes <= TABLE_BYTES:
        yield from [batch] if batch.num_rows else []
        return
    middle = batch.num_rows // 2
    yield from _bounded(batch.slice(0, middle))
    yield from _bounded(batch.slice(middle))


def _of_batch(
    batch: pa.RecordBatch, columns: Columns, render: Render | None, first: int
) -> RawTexts:
    rows = batch.num_rows
    positions = np.arange(first, first + rows, dtype=np.int64)
    bad: list[Bad] = []
    kept = np.ones(rows, bool)
    if columns.messages and render is not None:
        texts: list[bytes | None] = []
        for row, messages in enumerate(batch.column(columns.messages).to_pylist()):
            try:
                texts.append(render(messages).encode("utf-8", "surrogatepass"))
            except ValueError as error:
                kept[row] = False
                texts.append(None)
                why = f"row {first + row} has messages that cannot be rendered: {error}"
                bad.append(Bad(first + row, "bad_messages", why))
        text: Any = pa.array(texts, pa.binary())
    else:
        text = as_binary(batch.column(columns.text))
    arrays = [pa.array(positions), text]
    for name in (columns.source, columns.language):
        arrays.append(as_binary(batch.column(name)) if name else pa.nulls(rows, pa.binary()))
    arrays.append(pa.nulls(rows, pa.binary()))
    table = pa.table(arrays, schema=RAW)
    return RawTexts(table if kept.all() else table.filter(pa.array(kept)), bad)
