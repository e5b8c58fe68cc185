"""Parquet of URL and text (LAION's, DataComp's layouts) or with images, by row groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from curation.ingest.columns import Chosen
from curation.ingest.files import is_remote, open_raw
from curation.ingest.options import TABLE_BYTES, TABLE_ROWS
from curation.ingest.records import Bad, Raw, raw_table
from curation.ingest.texts import Column, as_binary, as_lists, column_texts, interleave
from schemas.errors import InputError


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a file and read its footer. Raises InputError if that cannot be read.

    Page checksums are checked where the file has them. Files are not mapped into memory: one
    that shrinks while it is read would kill the process.
    """
    source = open_raw(path) if is_remote(path) else pa.OSFile(path, "rb")
    try:
        return pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=is_remote(path))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"{path}: the Parquet footer cannot be read ({_first_line(error)}): the file is cut or "
            "damaged; copy it again or take it out of the input"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def group_sizes(file: pq.ParquetFile, names: list[str]) -> list[tuple[int, int]]:
    """(rows, uncompressed bytes of the named columns) of each row group."""
    sizes = []
    for g in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(g)
        columns = (group.column(c) for c in range(group.num_columns))
        total = sum(
            c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] in names
        )
        sizes.append((group.num_rows, total))
    return sizes


def read_parquet(path: str, chosen: Chosen, groups: range, first_row: int) -> Iterator[Raw]:
    """RAW tables of some row groups; ``first_row`` is the number of their first row in the file.

    What cannot be decoded costs the rest of its row group, never more: the rows come back as one
    :class:`Bad` (``bad_parquet_row``) that says which they are.
    """
    with open_parquet(path) as file:
        sizes = group_sizes(file, chosen.names)
        for g in groups:
            rows, total = sizes[g]
            yield from _read_group(file, path, chosen, g, rows, total, first_row)
            first_row += rows


def _read_group(
    file: pq.ParquetFile,
    path: str,
    chosen: Chosen,
    group: int,
    rows: int,
    total: int,
    first_row: int,
) -> Iterator[Raw]:
    per_row = max(1, total // max(rows, 1))
    batch_rows = max(16, min(TABLE_ROWS, TABLE_BYTES // 2 // per_row))
    done = 0
    try:
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=chosen.names):
            # A footer that promises fewer rows than the pages hold does not get to double them.
            batch = batch.slice(0, min(batch.num_rows, rows - done))
            for part in _bounded(batch):
                yield raw_of(part, chosen, first_row + done)
                done += part.num_rows
    except (pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
        raise InputError(
            f"{path}: row group {group} cannot be read: {_first_line(error)}"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield _lost(group, first_row + done, rows - done, _first_line(error))
        return
    if done < rows:
        yield _lost(group, first_row + done, rows - done, f"its pages hold {done} of {rows} rows")


def _lost(group: int, first: int, count: int, why: str) -> Raw:
    error = f"rows {first} to {first + count - 1} of row group {group} cannot be read: {why}"
    return Raw(raw_table({}, 0), [Bad(first, "bad_parquet_row", error, count=count)])


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices of a batch within the bound of tables, where single rows allow."""
    pieces = min(batch.num_rows, -(-batch.nbytes // TABLE_BYTES))
    if pieces <= 1:
        yield from [batch] if batch.num_rows else []
        return
    middle = batch.num_rows // 2
    yield from _bounded(batch.slice(0, middle))
    yield from _bounded(batch.slice(middle))


def raw_of(batch: pa.RecordBatch, chosen: Chosen, first_row: int) -> Raw:
    """One batch as a RAW table; values that parse but mean nothing are listed as wrong."""
    n = batch.num_rows
    wrong: list[tuple[int, str, str]] = []
    columns: dict[str, Column] = {
        "position": pa.array(np.arange(first_row, first_row + n, dtype=np.int64))
    }
    parts = []
    for name in chosen.texts:
        counts, keys, texts, errors = column_texts(batch.column(name), name, chosen.text_format)
        parts.append((counts, keys, texts))
        wrong += [(row, "bad_record", error) for row, error in errors]
    columns["texts"] = as_lists(*interleave(parts, n))
    if chosen.url:
        columns["url"] = as_binary(batch.column(chosen.url))
    if chosen.image:
        columns["image"], columns["path"] = _image(batch.column(chosen.image))
    if chosen.id:
        columns["id"] = _id(batch.column(chosen.id))
    if chosen.score:
        columns["score"] = batch.column(chosen.score).cast(pa.float64(), safe=False)
    if chosen.sha256:
        columns["sha256"], bad = sha256_column(as_binary(batch.column(chosen.sha256)))
        wrong += [(row, "bad_record", error) for row, error in bad]
    return Raw(raw_table(columns, n), wrong=wrong)


def _image(column: Column) -> tuple[Column, Column]:
    if not pt.is_struct(column.type):
        return as_binary(column), pa.nulls(len(column), pa.string())
    children = dict(zip([f.name for f in column.type.fields], column.flatten(), strict=True))
    path = pa.nulls(len(column), pa.string())
    if "path" in children and children["path"].type == pa.string():
        try:
            path = children["path"].view(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:  # a name that is not UTF-8 is no reason to lose an image
            path = pa.nulls(len(column), pa.string())
    return as_binary(children["bytes"]), path


def _id(column: Column) -> Column:
    return as_binary(column.cast(pa.string()) if pt.is_integer(column.type) else column)


def sha256_column(column: Column) -> tuple[Column, list[tuple[int, str]]]:
    """Digests from 32 bytes or 64 hex digits each, and the rows that hold neither."""
    lengths: Column = pc.binary_length(column)
    if (lengths.fill_null(32).to_numpy(zero_copy_only=False) == 32).all():
        return column.cast(pa.binary(32)), []
    digests: list[bytes | None] = []
    wrong = []
    for row, value in enumerate(column.to_pylist()):
        digest = value if value is None or len(value) == 32 else _unhex(value)
        if value and digest is None:
            wrong.append((row, f"SHA-256 is neither 64 hex digits nor 32 bytes: {value[:80]!r}"))
        digests.append(digest)
    return pa.array(digests, pa.binary(32)), wrong


def _unhex(value: bytes) -> bytes | None:
    try:
        return bytes.fromhex(value.decode("ascii")) if len(value) == 64 else None
    except ValueError:
        return None
