"""The files of an export: URL-and-text Parquet, and webdataset tar shards.

Both are pure functions of the rows: the same rows give the same bytes. A tar sample is
`<pair id>.jpg` (or .png, .webp, ... by the image's content), `.txt` with the caption and `.json`
with what the dataset knows of the pair, as img2dataset writes and webdataset and open_clip read.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import InputError

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (8, b"WEBP", "webp"),
    (0, b"GIF8", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (4, b"ftypavif", "avif"),
)
_ROW_GROUP_ROWS = 100_000
_FACTS = ("key", "language", "metadata", "keep_probability", "score")


@dataclass
class Written:
    """What went into one file, and what the rows left out lacked, by reason."""

    rows: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


_FETCHABLE = r"(?i)^(https?|generated)://"
"""Downloaders open what they are given, file:// too; so other schemes count as no address."""


@dataclass(frozen=True)
class UrlText:
    """Parquet of URL, caption, hex ids and what else the dataset knows of a pair."""

    url_column: str = "url"
    caption_column: str = "caption"
    suffix = "parquet"
    needs = "url"

    def columns(self, names: Iterable[str]) -> list[str]:
        """The dataset's columns that the format reads."""
        return [n for n in names if n in ("pair_id", "image_id", "url", "text", *_FACTS)]

    def write(self, tables: Iterable[pa.Table], path: Path, missing: Missing) -> Written:
        """Write one file, held in memory; `missing` decides about rows without a URL."""
        done, parts = Written(), []
        for table in tables:
            has = pc.fill_null(pc.match_substring_regex(table["url"], _FETCHABLE), False)
            parts.append(self._table(missing.filter(table, has.to_numpy(), done)))
        # One table before writing: row groups must not follow the cut of the dataset's shards.
        whole = pa.concat_tables([self._schema(missing.schema).empty_table(), *parts])
        done.rows = whole.num_rows
        pq.write_table(
            whole.combine_chunks(),
            path,
            compression="zstd",
            row_group_size=_ROW_GROUP_ROWS,
            store_schema=False,
        )
        return done

    def _schema(self, source: pa.Schema) -> pa.Schema:
        facts = [source.field(n) for n in _FACTS if n in source.names]
        names = (self.url_column, self.caption_column, "pair_id", "image_id")
        strings = [pa.field(n, pa.string()) for n in names]
        return pa.schema([*strings, *(pa.field(f.name, f.type) for f in facts)])

    def _table(self, table: pa.Table) -> pa.Table:
        columns: list[Any] = [table["url"], table["text"]]
        columns += [pa.array(_hex(table[n]), pa.string()) for n in ("pair_id", "image_id")]
        columns += [table[n] for n in _FACTS if n in table.column_names]
        schema = self._schema(table.schema)
        return pa.table(columns, schema=schema)


@dataclass(frozen=True)
class WebDataset:
    """Tar shards of image, caption and facts."""

    suffix = "tar"
    needs = "image"

    def columns(self, names: Iterable[str]) -> list[str]:
        """The dataset's columns that the format reads."""
        return [n for n in names if n in ("pair_id", "image_id", "url", "text", "image", *_FACTS)]

    def write(self, tables: Iterable[pa.Table], path: Path, missing: Missing) -> Written:
        """Write one shard; `missing` decides about rows without image bytes."""
        done = Written()
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for table in tables:
                image = table["image"].combine_chunks()
                has = image.is_valid().to_numpy(zero_copy_only=False)
                has &= image.field("bytes").is_valid().to_numpy(zero_copy_only=False)
                kept = missing.filter(table, has, done)
                done.rows += kept.num_rows
                for row in kept.to_pylist():
                    self._add(tar, row)
        return done

    def _add(self, tar: tarfile.TarFile, row: dict[str, Any]) -> None:
        name, data = row["pair_id"].hex(), row["image"]["bytes"]
        facts = {
            "caption": row["text"],
            "image_id": row["image_id"].hex(),
            "pair_id": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "url": row["url"],
            **{n: row[n] for n in _FACTS if n in row},
        }
        text = json.dumps(facts, ensure_ascii=False, sort_keys=True)
        _member(tar, f"{name}.{extension(data, name)}", data)
        _member(tar, f"{name}.txt", row["text"].encode())
        _member(tar, f"{name}.json", text.encode())


Writer = UrlText | WebDataset


@dataclass(frozen=True)
class Missing:
    """What happens to rows that lack what the format needs: left out and counted, or an error."""

    dataset: str
    schema: pa.Schema
    needs: str
    skip: bool

    def filter(self, table: pa.Table, has: np.ndarray, done: Written) -> pa.Table:
        """The rows that can be written. Raises InputError naming the first that cannot."""
        lost = int(len(has) - has.sum())
        if not lost:
            return table
        if not self.skip:
            first = table["pair_id"][int(np.argmin(has))].as_py().hex()
            what = "image bytes" if self.needs == "image" else "URL"
            raise InputError(
                f"{self.dataset}: pair {first} has no {what}, so the export would lack it; fetch "
                "the images first, or leave such pairs out with --skip-missing"
            )
        reason = f"no_{self.needs}"
        done.skipped[reason] = done.skipped.get(reason, 0) + lost
        return table.filter(pa.array(has))


def extension(data: bytes, pair: str) -> str:
    """File extension by the image's first bytes. Raises InputError for an unknown format."""
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return name
    raise InputError(
        f"the image of pair {pair} starts with {data[:8]!r}, which is no image format known here "
        "(jpg, png, webp, gif, bmp, tiff, avif)"
    )


def _member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # no time, owner or mode of this machine
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))


def _hex(column: pa.ChunkedArray) -> list[str]:
    return [value.hex() for value in column.to_pylist()]
