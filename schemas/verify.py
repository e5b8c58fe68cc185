"""Verification: re-hash everything a dataset names, and name what it does not."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.dataset import BLOBS, stored_digest
from schemas.errors import HeadraceError
from schemas.ids import id_sum
from schemas.manifest import Manifest
from schemas.shard_list import read_shard_list
from schemas.storage import Storage
from schemas.table_schemas import SchemaSpec
from schemas.writer import Shard


def verify(storage: Storage) -> list[str]:
    """Return one line for each fault of a dataset; [] means that all of it is as committed.

    Checks the head, the shard list, every shard (presence, size, checksum, footer, schema, sum of
    ids), every blob, the ledger, and strangers in ``data/``. Reads every byte. An absent manifest,
    or one of a newer version, raises InputError; faults found are returned, not raised.
    """
    try:
        manifest = Manifest.load(storage)
        shards = read_shard_list(storage, manifest)
    except HeadraceError as error:
        if error.exit_code == 3:
            raise
        return [str(error)]
    faults: list[str] = []
    for shard in shards:
        faults += _shard(storage, manifest.spec, shard)
    for name, entry in sorted(manifest.blobs.items()):
        faults += _blob(storage, name, str(entry["digest"]))
    try:
        manifest.ledger.check()
    except HeadraceError as error:
        faults.append(f"{storage.url}: {error}")
    named = {shard.file for shard in shards}
    for key in storage.list("data"):
        if key not in named:
            faults.append(
                f"{storage.path(key)} is a stranger: the manifest does not name it, but readers of "
                "data/ will read it; delete it"
            )
    return faults


def _shard(storage: Storage, spec: SchemaSpec, shard: Shard) -> Iterator[str]:
    path = storage.path(shard.file)
    if posixpath.basename(shard.file) != f"{shard.digest}.parquet":
        yield f"{path} is named for another content than its digest {shard.digest}"
    try:
        found = stored_digest(storage, shard.file)
    except FileNotFoundError:
        yield f"{path} is missing ({shard.rows} rows); restore it or build the dataset anew"
        return
    if found != shard.digest:
        size = storage.size(shard.file)
        yield (
            f"{path} was changed: checksum found {found}, expected {shard.digest} "
            f"({size} bytes, expected {shard.bytes})"
        )
        return
    try:
        with storage.open_input(shard.file) as source, pq.ParquetFile(source) as file:
            yield from _content(path, spec, shard, file)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield f"{path} has the right checksum but cannot be read: {str(error).splitlines()[0]}"


def _content(path: str, spec: SchemaSpec, shard: Shard, file: pq.ParquetFile) -> Iterator[str]:
    meta = file.metadata
    if (meta.num_rows, meta.num_row_groups) != (shard.rows, shard.row_groups):
        yield (
            f"{path} has {meta.num_rows} rows in {meta.num_row_groups} row groups, the shard list "
            f"says {shard.rows} in {shard.row_groups}"
        )
    older = [f for f in spec.arrow if f.name in file.schema_arrow.names or not f.nullable]
    if not file.schema_arrow.equals(pa.schema(older)):
        yield f"{path} has columns {file.schema_arrow.names}, not those of {spec.name}"
        return
    if spec.id_column and shard.id_sum:
        total = 0
        for group in range(meta.num_row_groups):
            column = file.read_row_group(group, [spec.id_column]).column(0)
            total = (total + id_sum(column)) % (1 << 128)
        if f"{total:032x}" != shard.id_sum:
            yield f"{path}: its ids add up to {total:032x}, the shard list says {shard.id_sum}"


def _blob(storage: Storage, name: str, digest: str) -> Iterator[str]:
    key = f"{BLOBS}/{digest}"
    try:
        found = stored_digest(storage, key)
    except FileNotFoundError:
        yield f"{storage.path(key)} (blob {name!r}) is missing"
        return
    if found != digest:
        yield f"{storage.path(key)} (blob {name!r}) was changed: checksum found {found}, " + (
            f"expected {digest}"
        )
