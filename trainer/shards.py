"""Shards on this machine: each hashed once a process before it is used, images read in place.

The writer stores image bytes uncompressed, so they lie whole in the file: `Shards.raw` maps the file and
returns views into it, without a copy (pyarrow's own reading copies them twice). Only the layout that
`schemas.writer` gives is read this way (data pages 1.0, PLAIN, not compressed, not repeated); of any other
it returns None and the caller reads by pyarrow.

Shards elsewhere than on a local disk are neither hashed nor mapped here.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.dataset import Dataset
from schemas.errors import IntegrityError
from schemas.table_schemas import IMAGE

Objects: TypeAlias = "npt.NDArray[np.object_]"

MAPPED = 64
"""Shards that one reader keeps mapped."""

_hashed: set[tuple[str, str, int, int, int]] = set()
_HASHERS = 4


@dataclass(frozen=True)
class _Mapped:
    data: memoryview
    file: pq.ParquetFile
    leaves: dict[str, int]
    names: set[str]


class _OtherLayout(Exception):
    """The column is not laid out as `Shards.raw` reads it."""


class Shards:
    """The shards of a dataset. One thread at a time."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._mapped: OrderedDict[int, _Mapped] = OrderedDict()
        self._checked: set[int] = set()

    def check(self, shards: Iterable[int]) -> None:
        """Hash local shards that this process did not. IntegrityError for one that was changed.

        About 0.5 s a GB and core, or as fast as the disk. A file whose size, time or inode changed
        since is hashed again.
        """
        new = sorted(set(shards) - self._checked)
        if len(new) > 1:
            with ThreadPoolExecutor(min(_HASHERS, len(new))) as pool:
                list(pool.map(self._check, new))
        elif new:
            self._check(new[0])
        self._checked.update(new)

    def _check(self, shard: int) -> None:
        entry = self.dataset.shards()[shard]
        path = self.dataset.storage.local_path(entry.file)
        if path is None:
            return
        try:
            with open(path, "rb") as file:
                state = os.fstat(file.fileno())
                key = (entry.digest, str(path), state.st_size, state.st_mtime_ns, state.st_ino)
                if key in _hashed:
                    return
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise IntegrityError(
                f"{path} is missing, but the manifest names it; restore it or build the dataset anew"
            ) from None
        if found != entry.digest:
            raise IntegrityError(
                f"{path} has checksum {found}, the manifest says {entry.digest}: it was changed after "
                "the commit; restore it or build the dataset anew"
            )
        _hashed.add(key)

    def raw(self, shard: int, group: int, leaf: str) -> list[memoryview | None] | None:
        """Return the values of a row group's column of bytes as views into the file, null as None.

        ``leaf``: the column's Parquet path, such as "image.bytes". None (instead of a list) if the
        shard is not local or lays the column out in another way. Checks the shard first.
        """
        mapped = self._map(shard)
        if mapped is None or leaf not in mapped.leaves:
            return None
        try:
            return _column(mapped, group, mapped.leaves[leaf])
        except (_OtherLayout, struct.error, IndexError):
            return None

    def table(self, shard: int, group: int, columns: list[str]) -> pa.Table:
        """Return a row group's columns, as `Dataset.read_row_group`; a local shard stays open."""
        mapped = self._map(shard)
        if mapped is None or not set(columns) <= mapped.names:
            return self.dataset.read_row_group(shard, group, columns)
        return mapped.file.read_row_group(group, columns, use_threads=False).select(columns)

    def values(self, shard: int, group: int, columns: Sequence[str]) -> dict[str, Objects]:
        """Return a row group as Python values: object[n] a column; of images the bytes."""
        found: dict[str, Objects] = {}
        for name in columns:
            if self.dataset.schema.field(name).type == IMAGE:
                views = self.raw(shard, group, f"{name}.bytes")
                if views is not None:
                    found[name] = _objects(views)
        rest = [name for name in columns if name not in found]
        if rest:
            table = self.table(shard, group, rest)
            found |= {name: _objects_of(table[name]) for name in rest}
        return found

    def _map(self, shard: int) -> _Mapped | None:
        if shard in self._mapped:
            self._mapped.move_to_end(shard)
            return self._mapped[shard]
        path = self.dataset.storage.local_path(self.dataset.shards()[shard].file)
        if path is None:
            return None
        self.check({shard})
        with open(path, "rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        opened = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data)), pre_buffer=False)
        schema = opened.metadata.schema
        leaves = {schema.column(i).path: i for i in range(len(schema))}
        self._mapped[shard] = _Mapped(data, opened, leaves, set(opened.schema_arrow.names))
        while len(self._mapped) > MAPPED:
            self._mapped.popitem(last=False)  # views in use keep their file mapped
        return self._mapped[shard]


def _objects(values: Sequence[Any]) -> Objects:
    return np.fromiter(values, object, len(values))  # one by one: views are no nested arrays here


def _objects_of(column: pa.ChunkedArray) -> Objects:
    """A column as Python values; of images the bytes. The fast ways of `to_pylist`."""
    if column.type == IMAGE:
        column = pc.struct_field(column, "bytes")
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return column.to_numpy()
    if pa.types.is_fixed_size_binary(kind) and not column.null_count and len(column):
        whole = column.combine_chunks()
        raw = np.frombuffer(whole.buffers()[1], f"V{kind.byte_width}")
        return raw[whole.offset : whole.offset + len(whole)].astype(object)
    return _objects(column.to_pylist())


def _column(mapped: _Mapped, group: int, leaf: int) -> list[memoryview | None]:
    meta = mapped.file.metadata
    described = meta.schema.column(leaf)
    column = meta.row_group(group).column(leaf)
    if (
        column.compression != "UNCOMPRESSED"
        or column.has_dictionary_page
        or described.physical_type != "BYTE_ARRAY"
        or described.max_repetition_level
    ):
        raise _OtherLayout
    values: list[memoryview | None] = []
    at, end = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    while len(values) < column.num_values and at < end:
        header, at = _page_header(mapped.data, at)
        page = mapped.data[at : at + header.size]
        values += _page(page, header.values, described.max_definition_level)
        at += header.size
    if len(values) != column.num_values:
        raise _OtherLayout
    return values


def _page(page: memoryview, count: int, deepest: int) -> list[memoryview | None]:
    """The values of a PLAIN data page of bytes: levels, then (length, bytes) of each that is not null."""
    at, present = 0, np.ones(count, bool)
    if deepest:
        size = struct.unpack_from("<I", page)[0]
        at = 4 + size
        present = _levels(page[4:at], count, deepest.bit_length()) == deepest
    unpack = struct.Struct("<I").unpack_from
    found: list[memoryview | None] = []
    for here in present.tolist():
        if not here:
            found.append(None)
            continue
        (length,) = unpack(page, at)
        at += 4
        if at + length > len(page):
            raise _OtherLayout
        found.append(page[at : at + length])
        at += length
    return found


def _levels(data: memoryview, count: int, width: int) -> npt.NDArray[np.int64]:
    """Decode Parquet's hybrid of runs and bit-packed groups: int64[count]."""
    parts, have, at = [np.empty(0, np.int64)], 0, 0
    while have < count:
        head, at = _varint(data, at)
        if head & 1:
            size = (head >> 1) * width
            bits = np.unpackbits(np.frombuffer(data[at : at + size], np.uint8), bitorder="little")
            part = bits.reshape(-1, width).astype(np.int64) @ (1 << np.arange(width))
        else:
            size = (width + 7) // 8
            part = np.full(head >> 1, int.from_bytes(data[at : at + size], "little"))
        at += size
        parts.append(part)
        have += len(part)
    return np.concatenate(parts)[:count]


@dataclass(frozen=True)
class _Header:
    size: int
    values: int


def _page_header(data: memoryview, at: int) -> tuple[_Header, int]:
    """Read a PageHeader (Thrift, compact protocol): only a PLAIN data page 1.0 passes."""
    fields, at = _struct(data, at)
    page = fields.get(5)
    if fields.get(1) != 0 or fields.get(2) != fields.get(3) or not isinstance(page, dict):
        raise _OtherLayout
    size, values = fields[3], page.get(1)
    if page.get(2) != 0 or not isinstance(size, int) or not isinstance(values, int):
        raise _OtherLayout
    return _Header(size, values), at


def _struct(data: memoryview, at: int) -> tuple[dict[int, object], int]:
    """Fields of a Thrift struct by number: whole numbers, bytes and structs."""
    fields: dict[int, object] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _zigzag(data, at)
        if kind in (1, 2):  # true, false
            fields[number] = kind == 1
        elif kind in (3, 4, 5, 6):
            fields[number], at = _zigzag(data, at)
        elif kind == 8:
            size, at = _varint(data, at)
            fields[number], at = bytes(data[at : at + size]), at + size
        elif kind == 12:
            fields[number], at = _struct(data, at)
        else:
            raise _OtherLayout
    return fields, at + 1


def _zigzag(data: memoryview, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
