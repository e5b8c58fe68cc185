"""From pinned sources to units of work: format, columns and parts, fixed before anything is read.

A unit is at most about ``unit_bytes`` (256 MB) of input: a range of row groups of a Parquet file,
some images of a folder, or one file of another format, which can only be read from its start.
Units are the same for the same files and options, whatever reads them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from curation.ingest.columns import Chosen, choose, choose_typed
from curation.ingest.detect import detect
from curation.ingest.files import File
from curation.ingest.folder import Folder, choose_captions
from curation.ingest.jsonl import sample_keys
from curation.ingest.options import IngestOptions
from curation.ingest.parquet import group_sizes, open_parquet
from curation.ingest.sources import Pinned
from curation.ingest.tar import choose_tar
from curation.ingest.wat import KEYS, check_wat
from schemas.errors import InputError

WAT_TEXTS = f"image links with {', '.join(KEYS)}"


@dataclass(frozen=True)
class ReadUnit:
    """One unit: a file (or folder) by its ordinal among the pins, and the part of it to read.

    ``how`` says in words how it is read; ``size`` is the work in bytes. ``part`` holds JSON
    values: ``groups`` [first, end) and ``first_row`` for Parquet; ``images``, ``texts``,
    ``captions``, ``first`` and ``total`` for a folder; nothing for other formats.
    """

    file: int
    path: str
    format: str
    how: str
    bytes: int
    stamp: str
    checksum: str
    size: int
    chosen: dict[str, Any] | None
    part: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ReadUnit:
        """Read what ``to_json`` wrote."""
        return cls(**raw)


def plan(pinned: Pinned, options: IngestOptions) -> list[ReadUnit]:
    """Units of pinned sources in order.

    Raises InputError naming path and fix for what cannot be read: unknown formats, Parquet without
    a readable footer, columns that are missing or of a wrong type.
    """
    units: list[ReadUnit] = []
    for ordinal, source in enumerate(pinned.sources):
        if source.file is not None:
            units += _file_units(ordinal, source.file, options, pinned)
        else:
            assert source.folder is not None
            units += _folder_units(ordinal, source.folder, options, pinned)
    if not units:
        raise InputError(f"the input holds no rows: {', '.join(p.path for p in pinned.pins[:3])}")
    return units


def _agreed(file: File, asked: str) -> str:
    found = detect(file)
    if asked in ("auto", found):
        return found
    if "parquet" in (asked, found):
        raise InputError(f"format={asked}, but the content of {file.path} is {found}: drop format=")
    return asked


def _file_units(ordinal: int, file: File, options: IngestOptions, pinned: Pinned) -> list[ReadUnit]:
    form, limit = _agreed(file, options.format), options.max_record_bytes

    def unit(chosen: Chosen | None, size: int, **part: Any) -> ReadUnit:
        columns = None if chosen is None else chosen.to_json()
        how = f"{form} ({WAT_TEXTS if chosen is None else chosen})"
        checksum = pinned.checksums[file.path]
        return ReadUnit(
            ordinal, file.path, form, how, file.bytes, file.stamp, checksum, size, columns, part
        )

    if form == "wat":
        check_wat(file.path, limit)
        return [unit(None, file.bytes)]
    if form == "webdataset":
        return [unit(choose_tar(file.path, options.columns, limit), file.bytes)]
    if form == "jsonl":
        keys = sample_keys(file.path, limit)
        return [unit(choose(keys, options.columns, file.path, images=False), file.bytes)]
    with open_parquet(file.path) as parquet:
        chosen = choose_typed(parquet.schema_arrow, options.columns, file.path)
        sizes = group_sizes(parquet, chosen.names)
    return [
        unit(chosen, sum(n for _, n in sizes[first:end]), groups=[first, end], first_row=row)
        for first, end, row in _ranges(sizes, options.unit_bytes)
        if options.limit is None or row < options.limit
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


def _folder_units(
    ordinal: int, folder: Folder, options: IngestOptions, pinned: Pinned
) -> list[ReadUnit]:
    def packed(file: File) -> list[Any]:
        return [folder.relative(file), file.bytes, file.stamp, pinned.checksums[file.path]]

    limit = options.max_record_bytes
    chosen = [choose_captions(file, options.columns, limit) for file in folder.captions]
    captions = [
        [*packed(file), one.to_json()] for file, one in zip(folder.captions, chosen, strict=True)
    ]
    said = [f"{folder.relative(f)}: {c}" for f, c in zip(folder.captions, chosen, strict=True)]
    how = f"folder ({'; '.join(said + (['.txt beside images'] if folder.texts else []))})"
    units = []
    for first, images in _batches(folder.images, options.unit_bytes):
        stems = [posixpath.splitext(image.path)[0] for image in images]
        part = {
            "first": first,
            "total": len(folder.images),
            "images": [packed(image) for image in images],
            "texts": [packed(folder.texts[stem]) for stem in stems if stem in folder.texts],
            "captions": captions,
        }
        size = sum(image.bytes for image in images)
        units.append(ReadUnit(ordinal, folder.root, "folder", how, 0, "", "", size, None, part))
    return units


def _batches(images: list[File], limit: int) -> Iterator[tuple[int, list[File]]]:
    batch: list[File] = []
    first, total = 0, 0
    for place, image in enumerate(images):
        if batch and total + image.bytes > limit:
            yield first, batch
            batch, first, total = [], place, 0
        batch.append(image)
        total += image.bytes
    if batch:
        yield first, batch
