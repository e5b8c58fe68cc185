"""Reading committed datasets. A directory without a manifest is refused."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import InputError, IntegrityError, StorageError
from schemas.manifest import Manifest
from schemas.shard_list import read_shard_list
from schemas.storage import Storage, storage
from schemas.table_schemas import SchemaSpec
from schemas.writer import Shard

BLOBS = ".headrace/blobs"
"""Directory of a dataset's blobs, named by digest."""


class Dataset:
    """A committed dataset: its head, shards and rows. Picklable."""

    def __init__(self, root: Storage, manifest: Manifest) -> None:
        """Use ``open_dataset``."""
        self.storage = root
        self.manifest = manifest
        self._shards: list[Shard] | None = None

    @property
    def spec(self) -> SchemaSpec:
        """The dataset's registered schema."""
        return self.manifest.spec

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        return self.spec.arrow

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.manifest.rows

    def shards(self) -> list[Shard]:
        """Return the shards in order (read once, checked against the manifest)."""
        if self._shards is None:
            self._shards = read_shard_list(self.storage, self.manifest)
        return self._shards

    def read_shard(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a shard's rows."""
        with self._reading(index) as file:
            return self._rows(file, range(file.num_row_groups), columns)

    def tables(
        self,
        columns: Sequence[str] | None = None,
        shard: int | None = None,
        max_bytes: int = 32 << 20,
    ) -> Iterator[pa.Table]:
        """Stream row groups (of one shard or of all, in order) as tables of about ``max_bytes``."""
        for index in range(len(self.shards())) if shard is None else (shard,):
            with self._reading(index) as file:
                for group in range(file.num_row_groups):
                    yield from _pieces(self._rows(file, [group], columns), max_bytes)

    def read_row_group(
        self, shard: int, group: int, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return one row group of a shard."""
        with self._reading(shard) as file:
            return self._rows(file, [group], columns)

    def row_group_rows(self, shard: int) -> list[int]:
        """Return the rows of each row group of a shard (reads its footer)."""
        with self._reading(shard) as file:
            meta = file.metadata
            return [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]

    def take(
        self,
        shard: int,
        rows: npt.NDArray[np.integer] | Sequence[int],
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return rows of a shard by number, in the order asked; reads only their row groups."""
        wanted = np.asarray(rows, np.int64)
        total = self.shards()[shard].rows
        if wanted.size and (wanted.min() < 0 or wanted.max() >= total):
            raise InputError(
                f"{self._path(shard)} has {total} rows; row {int(wanted.max())} was asked for"
            )
        parts: list[pa.Table] = []
        where = np.empty(len(wanted), np.int64)
        done = 0
        with self._reading(shard) as file:
            start = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                hits = np.nonzero((wanted >= start) & (wanted < start + size))[0]
                if len(hits):
                    table = self._rows(file, [group], columns)
                    parts.append(table.take(wanted[hits] - start))
                    where[hits] = np.arange(done, done + len(hits))
                    done += len(hits)
                start += size
            empty = self._rows(file, [], columns)
        return pa.concat_tables([empty, *parts]).take(where)

    def blob(self, name: str, cache_dir: str | Path | None = None) -> Path:
        """Return a local copy of a blob, by digest, checked when it is copied; map it freely.

        Errors: InputError for an unknown name, IntegrityError for a blob that is missing or changed,
        StorageError if the cache is not this user's own.
        """
        entry = self.manifest.blobs.get(name)
        if entry is None:
            known = ", ".join(self.manifest.blobs) or "none"
            raise InputError(f"{self.storage.url} has no blob {name!r}; its blobs: {known}")
        digest, size = str(entry["digest"]), int(entry["bytes"])
        folder = Path(cache_dir) if cache_dir else _default_cache()
        target = folder / digest
        if target.exists() and target.stat().st_size == size:
            return target
        key = f"{BLOBS}/{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{digest}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            self.storage.fetch(key, temporary)
            found = file_digest(temporary)
            if found != digest:
                raise IntegrityError(
                    f"{self.storage.path(key)} has checksum {found}, the manifest says {digest}; "
                    "restore it or build the dataset anew"
                )
            temporary.replace(target)
        except FileNotFoundError:
            raise IntegrityError(
                f"{self.storage.path(key)} is missing, but the manifest names it; restore it or "
                "build the dataset anew"
            ) from None
        except OSError as error:
            raise StorageError(
                f"cannot copy blob {name!r} to {folder}: {error}; free space or give another cache"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return target

    # -- helpers ---------------------------------------------------------------------------

    def _path(self, index: int) -> str:
        return self.storage.path(self.shards()[index].file)

    def _reading(self, index: int) -> _ShardReader:
        return _ShardReader(self.storage, self._shard(index))

    def _shard(self, index: int) -> Shard:
        shards = self.shards()
        if not 0 <= index < len(shards):
            raise InputError(f"{self.storage.url} has {len(shards)} shards; {index} was asked for")
        return shards[index]

    def _rows(
        self, file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str] | None
    ) -> pa.Table:
        """Read row groups; nullable columns that an older version lacks are filled with null."""
        names = list(columns) if columns is not None else self.schema.names
        if unknown := [n for n in names if n not in self.schema.names]:
            raise InputError(
                f"{self.storage.url} ({self.spec.name} v{self.spec.version}) has no column "
                f"{unknown[0]!r}; its columns are {', '.join(self.schema.names)}"
            )
        stored = file.schema_arrow.names
        # Without any stored column the number of rows would be lost.
        wanted = [n for n in names if n in stored] or stored[:1]
        table = file.read_row_groups(list(groups), columns=wanted, use_threads=False)
        if table.column_names == names:
            return table
        arrays = [
            table.column(n) if n in wanted else pa.nulls(table.num_rows, self.schema.field(n).type)
            for n in names
        ]
        return pa.table(arrays, schema=pa.schema([self.schema.field(n) for n in names]))


class _ShardReader:
    """Context of an open shard whose decoding errors become IntegrityError."""

    def __init__(self, root: Storage, shard: Shard) -> None:
        self._root = root
        self._shard = shard

    def __enter__(self) -> pq.ParquetFile:
        try:
            self._source = self._root.open_input(self._shard.file)
        except FileNotFoundError:
            raise IntegrityError(
                f"{self._root.path(self._shard.file)} is missing, but the manifest names it; "
                "restore it or build the dataset anew"
            ) from None
        try:
            self._file = pq.ParquetFile(self._source, pre_buffer=not self._root.is_local)
        except (pa.ArrowException, OSError, ValueError) as error:
            self._source.close()
            raise self._damaged(error) from None
        if self._file.metadata.num_rows != self._shard.rows:
            self.__exit__(None, None, None)
            raise self._damaged(ValueError(f"its footer has {self._file.metadata.num_rows} rows"))
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        self._source.close()
        if isinstance(error, pa.ArrowException | OSError | ValueError) and not isinstance(
            error, FileNotFoundError
        ):
            raise self._damaged(error) from None

    def _damaged(self, error: BaseException) -> IntegrityError:
        shard, path = self._shard, self._root.path(self._shard.file)
        found = stored_digest(self._root, shard.file)
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        return IntegrityError(
            f"{path} cannot be read ({detail}): checksum found {found}, expected {shard.digest} "
            f"({shard.rows} rows, {shard.bytes} bytes); restore it or build the dataset anew"
        )


def open_dataset(root: str | Path | Storage) -> Dataset:
    """Open a committed dataset; InputError if there is none, IntegrityError if it was edited."""
    place = root if isinstance(root, Storage) else storage(root)
    return Dataset(place, Manifest.load(place))


def shard_tables(
    root: Storage,
    schema: Mapping[str, Any],
    shard: Shard,
    columns: Sequence[str] | None = None,
    max_bytes: int = 32 << 20,
) -> Iterator[pa.Table]:
    """Stream one shard of the dataset at ``root`` without its head and shard list.

    For workers that were handed the shard: a web pool's list has over a million lines. ``schema``
    is the manifest's {name, version}.
    """
    dataset = Dataset(root, Manifest(schema=dict(schema)))
    dataset._shards = [shard]
    return dataset.tables(columns, shard=0, max_bytes=max_bytes)


def put_blob(root: Storage, source: Path) -> dict[str, object]:
    """Store a local file as a blob; return its entry for the manifest's ``blobs``."""
    digest, size = file_digest(source), source.stat().st_size
    root.create_from_file(f"{BLOBS}/{digest}", source)
    return {"digest": digest, "bytes": size}


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a local file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_digest(root: Storage, key: str) -> str:
    """Return the SHA-256 (hex) of a stored object; FileNotFoundError if absent."""
    digest = hashlib.sha256()
    with root.open_input(key) as file:
        while block := file.read(8 << 20):
            digest.update(block)
    return digest.hexdigest()


def _pieces(table: pa.Table, max_bytes: int) -> Iterator[pa.Table]:
    if table.nbytes <= max_bytes or table.num_rows <= 1:
        if table.num_rows:
            yield table
        return
    half = table.num_rows // 2
    yield from _pieces(table.slice(0, half), max_bytes)
    yield from _pieces(table.slice(half), max_bytes)


@functools.cache
def _default_cache() -> Path:
    """This user's own folder: another user's file of the right name would be mapped as ours."""
    folder = Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}" / "blobs"
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder.parent, folder):
        state = place.lstat()
        if state.st_uid != os.getuid() or not stat.S_ISDIR(state.st_mode):
            raise StorageError(
                f"{place} belongs to another user; remove it or set TMPDIR elsewhere"
            )
        place.chmod(0o700)
    return folder
