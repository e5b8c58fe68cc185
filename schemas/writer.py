"""The canonical shard writer: the same rows in the same order give the same bytes.

Whatever the chunking, slicing or encoding of the tables that come in, row groups and shards
are cut by the rows' sizes alone, each row group is one chunk of the schema's plain types, and
all writer options are fixed. Memory is bounded by about two row groups, not by the shard.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import IntegrityError
from schemas.ids import id_sum
from schemas.row_sizes import first_disorder, row_sizes
from schemas.shard_file import ShardFile
from schemas.storage import Storage
from schemas.table_schemas import IMAGE, SCHEMAS, SchemaSpec

ROW_GROUP_BYTES = 14 << 20
"""Greedy limit of a row group's row sizes; encodings add little, so it stays below 16 MB."""

ROW_GROUP_ROWS = 1 << 20
"""Limit of a row group's rows."""

SHARD_BYTES = 256 << 20
"""Default limit of a shard's row sizes before compression."""

_PIECE_BYTES = 64 << 20


@dataclass(frozen=True)
class Shard:
    """One Parquet file: key below the dataset, rows, bytes, SHA-256 of the file (hex).

    ``id_sum`` is the order-free sum of the ids written (hex), empty for schemas without ids.
    """

    file: str
    rows: int
    bytes: int
    digest: str
    row_groups: int
    id_sum: str = ""


class ShardWriter:
    """Write rows in their final order into content-addressed shards below ``data/``.

    A context manager: an exception aborts, and no file of the writer appears in ``data/`` after
    it (shards that were finished before stay there until a commit's clean-up).
    """

    def __init__(
        self,
        storage: Storage,
        spec: SchemaSpec,
        *,
        target_bytes: int = SHARD_BYTES,
        scratch: Path | None = None,
        sort_by: tuple[str, ...] | None = None,
        extra_metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Cut shards at ``target_bytes`` of row sizes; ``scratch`` holds the file being written.

        ``sort_by`` replaces the schema's row order, () switches the check off.
        """
        self.storage = storage
        self.spec = spec
        self.target_bytes = max(target_bytes, 1)
        self.scratch = scratch
        self.sort_by = spec.sort_by if sort_by is None else sort_by
        extra = {f"headrace.{k}": v for k, v in sorted((extra_metadata or {}).items())}
        self._schema = spec.arrow.with_metadata({**(spec.arrow.metadata or {}), **extra})
        self._pending: list[pa.Table] = []
        self._group_bytes = 0
        self._group_rows = 0
        self._shard_bytes = 0
        self._shard_rows = 0
        self._shard_groups = 0
        self._shard_ids = 0
        self._last: pa.Table | None = None
        self._rows_seen = 0
        self._file: ShardFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._closing: tuple[ShardFile, int, int, str] | None = None
        self._shards: list[Shard] = []
        self._closed = False

    def write(self, table: pa.Table) -> None:
        """Append rows. InputError: wrong schema. IntegrityError: a row out of order."""
        if self._closed:
            raise ValueError("the writer is closed")
        if table.nbytes > _PIECE_BYTES and table.num_rows > 1:
            half = table.num_rows // 2
            self.write(table.slice(0, half))
            self.write(table.slice(half))
            return
        table = self.spec.validate(table)
        self._check_order(table)
        sizes = row_sizes(table)
        start = 0
        while start < table.num_rows:
            start += self._take(table, sizes, start)
        self._rows_seen += table.num_rows
        self._release()

    def close(self) -> list[Shard]:
        """Flush, make every shard durable, and return the shards in order."""
        if not self._closed:
            try:
                self._finish_shard()
                self._settle()
            except BaseException:
                self.abort()
                raise
            self._closed = True
        return list(self._shards)

    def abort(self) -> None:
        """Drop what is not finished."""
        self._closed = True
        self._pending.clear()
        for file in (self._file, self._closing and self._closing[0]):
            if file is not None:
                file.discard()
        self._file = self._closing = self._writer = None

    def __enter__(self) -> ShardWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, or abort if an exception is on its way."""
        if kind is None:
            self.close()
        else:
            self.abort()

    # -- cutting ---------------------------------------------------------------------------

    def _take(self, table: pa.Table, sizes: np.ndarray, start: int) -> int:
        """Add rows from ``start`` to the open row group; return how many.

        A row joins the open shard and row group unless it would exceed a limit of one that has
        rows. The rule looks at one row after the other, so chunking cannot change a cut.
        """
        if self._group_rows == ROW_GROUP_ROWS:
            self._flush_group()
        room = ROW_GROUP_ROWS - self._group_rows
        ends = np.cumsum(sizes[start : start + room]) + self._group_bytes
        shard_room = self.target_bytes - self._shard_bytes
        count = int(np.searchsorted(ends, min(ROW_GROUP_BYTES, shard_room), side="right"))
        first_fits_shard = self._shard_bytes == 0 or ends[0] <= shard_room
        if count == 0 and self._group_rows == 0 and first_fits_shard:
            count = 1  # a row larger than a row group stands alone
        if count:
            self._pending.append(table.slice(start, count))
            self._group_rows += count
            self._group_bytes = int(ends[count - 1])
        if start + count < table.num_rows and self._group_rows < ROW_GROUP_ROWS:
            self._flush_group()
            if self._shard_bytes and self._shard_bytes + sizes[start + count] > self.target_bytes:
                self._finish_shard()
        return count

    def _release(self) -> None:
        """Copy waiting slices that keep much larger tables alive."""
        if self._pending:
            waiting = pa.concat_tables(self._pending)
            if waiting.get_total_buffer_size() > 4 * ROW_GROUP_BYTES + 2 * waiting.nbytes:
                # Two chunks at least, or combine_chunks returns the slice itself.
                waiting = pa.concat_tables([waiting, self.spec.empty()])
                self._pending = [waiting.combine_chunks()]

    def _flush_group(self) -> None:
        if not self._group_rows:
            return
        group = pa.concat_tables(self._pending).combine_chunks()
        group = group.replace_schema_metadata(self._schema.metadata)
        self._pending.clear()
        if self._writer is None:
            self._file = ShardFile(self._scratch_path())
            self._writer = _parquet_writer(self._file, self._schema, self.spec.name)
        if self.spec.id_column:
            self._shard_ids += id_sum(group.column(self.spec.id_column))
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._shard_bytes += self._group_bytes
        self._shard_rows += group.num_rows
        self._shard_groups += 1
        self._group_bytes = self._group_rows = 0

    def _finish_shard(self) -> None:
        self._flush_group()
        if self._writer is None or self._file is None:
            return
        self._writer.close()
        self._settle()
        ids = f"{self._shard_ids % (1 << 128):032x}" if self.spec.id_column else ""
        self._file.finish(self.storage)
        self._closing = (self._file, self._shard_rows, self._shard_groups, ids)
        self._file = self._writer = None
        self._shard_bytes = self._shard_rows = self._shard_groups = self._shard_ids = 0

    def _settle(self) -> None:
        """Wait until the shard before is durable (it is synced while the next is written)."""
        if self._closing is None:
            return
        file, rows, groups, ids = self._closing
        key, size, digest = file.result()
        self._closing = None
        self._shards.append(Shard(key, rows, size, digest, groups, ids))

    def _scratch_path(self) -> Path:
        if self.scratch is None:
            return self.storage.scratch()
        self.scratch.mkdir(parents=True, exist_ok=True)
        return self.scratch / f"{os.getpid()}+{secrets.token_hex(8)}.tmp"

    # -- order -----------------------------------------------------------------------------

    def _check_order(self, table: pa.Table) -> None:
        if not self.sort_by or not table.num_rows:
            return
        keys = table.select(list(self.sort_by))
        if self._last is not None:
            edge = pa.concat_tables([self._last, keys.slice(0, 1)])
            if first_disorder(edge, self.sort_by) is not None:
                self._refuse(edge, 1, self._rows_seen)
        row = first_disorder(keys, self.sort_by)
        if row is not None:
            self._refuse(keys, row, self._rows_seen + row)
        self._last = keys.slice(len(keys) - 1).take([0])

    def _refuse(self, keys: pa.Table, row: int, number: int) -> NoReturn:
        before, after = (_shown(keys, i) for i in (row - 1, row))
        raise IntegrityError(
            f"{self.storage.url}: row {number} is out of order: {after} comes after {before}; "
            f"{self.spec.name} must be written sorted by {', '.join(self.sort_by)}"
        )


def _parquet_writer(file: Any, schema: pa.Schema, name: str) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, schema, **_options(name))


def _shown(keys: pa.Table, row: int) -> str:
    values = (keys.column(i)[row].as_py() for i in range(keys.num_columns))
    return "(" + ", ".join(v.hex() if isinstance(v, bytes) else repr(v) for v in values) + ")"


@functools.lru_cache(maxsize=64)
def _options(name: str) -> dict[str, Any]:
    """Return the fixed Parquet options of a schema, by leaf column."""
    schema = SCHEMAS[name].arrow
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    paths = [leaves.column(i).path for i in range(len(leaves))]
    raw = {f"{f.name}.bytes" for f in schema if f.type == IMAGE}
    # Bounds of texts and URLs help no reader; those of ids, places and numbers do.
    ordered = (
        {f.name for f in schema if pa.types.is_primitive(f.type)}
        | {f.name for f in schema if pa.types.is_fixed_size_binary(f.type)}
        | set(SCHEMAS[name].sort_by)
    )
    # Mostly unique values: a dictionary would be built and thrown away in every row group.
    unique = raw | {"pair_id", "image_id", "sha256", "row", "url", "text", "score", "position"}
    return {
        "version": "2.6",
        "data_page_version": "1.0",
        "compression": {p: "none" if p in raw else "zstd" for p in paths},
        "compression_level": {p: 1 for p in paths if p not in raw},
        "use_dictionary": [p for p in paths if p not in unique],
        "write_statistics": [p for p in paths if p.partition(".")[0] in ordered],
        "data_page_size": 1 << 20,
        "dictionary_pagesize_limit": 1 << 20,
        "write_batch_size": 1024,
        "store_schema": True,
        "write_page_index": False,
        "write_page_checksum": False,
    }


def write_empty(storage: Storage, spec: SchemaSpec) -> Shard:
    """Write a shard without rows: a dataset without rows keeps its columns for every reader."""
    file = ShardFile(storage.scratch())
    _parquet_writer(file, spec.arrow, spec.name).close()
    file.finish(storage)
    key, size, digest = file.result()
    return Shard(key, 0, size, digest, 0, "0" * 32 if spec.id_column else "")
