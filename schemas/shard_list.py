"""The shard list: a Parquet file beside the head, because a web pool has over a million shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import IntegrityError
from schemas.manifest import Manifest
from schemas.storage import Storage
from schemas.writer import Shard

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("file", pa.string()),
    ("rows", pa.int64()),
    ("bytes", pa.int64()),
    ("digest", pa.string()),
    ("row_groups", pa.int32()),
    ("id_sum", pa.string()),
]
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _COLUMNS])


def write_shard_list(storage: Storage, shards: Sequence[Shard]) -> dict[str, str]:
    """Create the list (content-addressed) and return the manifest's ``shards`` field."""
    columns = {name: [getattr(s, name) for s in shards] for name in SCHEMA.names}
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns, SCHEMA), sink, compression="zstd", compression_level=1,
        use_dictionary=False, row_group_size=1 << 20,
    )  # fmt: skip
    data = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest()
    key = f".headrace/shards-{digest}.parquet"
    storage.create(key, data)
    return {"file": key, "digest": digest}


def read_shard_list(storage: Storage, manifest: Manifest) -> list[Shard]:
    """Return a dataset's shards in order; IntegrityError if the list is missing or changed."""
    key, expected = manifest.shards["file"], manifest.shards["digest"]
    path = storage.path(key)
    try:
        data = storage.read_bytes(key)
    except FileNotFoundError:
        raise IntegrityError(
            f"{path} is missing, but {storage.url}/manifest.json names it; restore it or build "
            "the dataset anew"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise IntegrityError(
            f"{path} has checksum {found}, the manifest says {expected}: it was changed; restore "
            "it or build the dataset anew"
        )
    # One thread: Arrow's pools are not worth starting for this.
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        table = file.read(use_threads=False)
    shards = [Shard(**row) for row in table.to_pylist()]
    totals = {
        "rows": sum(s.rows for s in shards),
        "bytes": sum(s.bytes for s in shards),
        "shards": len(shards),
    }
    if totals != manifest.totals:
        raise IntegrityError(
            f"{storage.url}: the shard list adds up to {totals}, the manifest says "
            f"{manifest.totals}; restore the manifest or build the dataset anew"
        )
    return shards
