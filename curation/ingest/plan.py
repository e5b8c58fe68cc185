"""From ``input=`` to pinned files and units of work: what to read, fixed before anything is read.

A unit is at most about ``unit_bytes`` (256 MB) of input: a range of row groups of a Parquet file,
some images of a folder, or one file of another format, which can only be read from its start.
Units are the same for the same files and options, whatever reads them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.ingest import files as fs
from curation.ingest.columns import Chosen, choose, choose_typed
from curation.ingest.detect import DATA_SUFFIXES, IMAGE_SUFFIXES, detect, suffix_of
from curation.ingest.files import File, Pin
from curation.ingest.folder import Folder, choose_captions, folder_of
from curation.ingest.jsonl import sample_keys
from curation.ingest.options import IngestOptions
from curation.ingest.parquet import group_sizes, open_parquet
from curation.ingest.tar import choose_tar
from curation.ingest.wat import check_wat
from schemas.errors import InputError


@dataclass(frozen=True)
class ReadUnit:
    """One unit: a file (or folder) by its ordinal among the pins, and the part of it to read.

    ``part`` holds JSON values: ``groups`` [first, end) and ``first_row`` for Parquet; ``images``,
    ``texts``, ``captions``, ``first`` and ``total`` for a folder; nothing for other formats.
    """

    file: int
    path: str
    format: str
    bytes: int
    stamp: str
    checksum: str
    chosen: dict[str, Any] | None
    part: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ReadUnit:
        """Read what ``to_json`` wrote."""
        return cls(**raw)


@dataclass
class Plan:
    """What an ingest will read: pins by ordinal, units in order, and what was chosen for whom."""

    pins: list[Pin]
    units: list[ReadUnit]
    chosen: dict[str, list[str]]  # what is read how -> paths
    memory: dict[str, str]  # checksums by :func:`curation.ingest.files.memory_key`

    def notes(self) -> list[str]:
        """One line for each way of reading: the format, the columns, how many inputs."""
        return [
            f"{how} ({paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''})"
            for how, paths in self.chosen.items()
        ]


@dataclass
class _Source:
    """One input before it is pinned: a file, or a folder of images."""

    path: str
    format: str
    file: File | None = None
    folder: Folder | None = None

    def files(self) -> list[File]:
        if self.file is not None:
            return [self.file]
        assert self.folder is not None
        return [*self.folder.images, *self.folder.captions, *self.folder.texts.values()]


def plan(
    inputs: str | Sequence[str],
    options: IngestOptions,
    known: Mapping[str, str] | None = None,
) -> Plan:
    """Find, pin and divide the inputs: paths, globs, directories or URLs, separated by commas.

    ``known`` holds checksums remembered from before (``Plan.memory``). Raises InputError naming
    the path and the fix for what is absent, empty, of no known format, or lacks columns.
    """
    sources = sorted(_sources(inputs, options), key=lambda source: source.path)
    every = [file for source in sources for file in source.files()]
    pinned = {p.path: p for p in fs.pin(every, known)}
    result = Plan([], [], {}, {})
    result.memory = {fs.memory_key(file): pinned[file.path].checksum for file in every}
    for ordinal, source in enumerate(sources):
        if source.file is not None:
            result.pins.append(pinned[source.file.path])
            how, units = _file_units(ordinal, source, options, pinned)
        else:
            assert source.folder is not None
            own = [pinned[file.path] for file in sorted(source.files(), key=lambda f: f.path)]
            result.pins.append(fs.pin_folder(source.path, own))
            how, units = _folder_units(ordinal, source.folder, options, pinned)
        result.units += units
        result.chosen.setdefault(how, []).append(source.path)
    if not result.units:
        raise InputError(f"the input holds no rows: {', '.join(s.path for s in sources[:3])}")
    return result


def _sources(inputs: str | Sequence[str], options: IngestOptions) -> Iterator[_Source]:
    seen = set()
    for path in _paths(inputs):
        for source in _source(path, options):
            if source.path not in seen:  # named twice is not read twice
                seen.add(source.path)
                yield source


def _paths(inputs: str | Sequence[str]) -> Iterator[str]:
    if isinstance(inputs, str):
        whole = inputs.strip()
        if not whole:
            raise InputError("input= is empty: name files, directories, globs or URLs")
        given = [whole] if "," not in whole or fs.exists(whole) else whole.split(",")
    else:
        given = list(inputs)
    for item in (item.strip() for item in given):
        if not item:
            continue
        if any(c in item for c in "*?[") and not fs.exists(item):
            found = fs.matches(item)
            if not found:
                raise InputError(f"input={item} matches no file; check the pattern")
            yield from found
        else:
            yield item


def _source(path: str, options: IngestOptions) -> Iterator[_Source]:
    if not fs.is_directory(path):
        file = fs.look(path)
        if options.format == "folder":
            raise InputError(f"format=folder, but {path} is a file: give the directory")
        found = detect(file)
        yield _Source(file.path, _agreed(file, found, options.format), file=file)
        return
    files = fs.walk(path)
    root = path.rstrip("/") if fs.is_remote(path) else fs.look_directory(path)
    images = any(suffix_of(file.path, IMAGE_SUFFIXES) for file in files)
    if options.format == "folder" or (options.format == "auto" and images):
        yield _Source(root, "folder", folder=folder_of(root, files))
        return
    data = [file for file in files if suffix_of(file.path, DATA_SUFFIXES)]
    if not data:
        raise InputError(
            f"{path} holds no file to read ({len(files)} files, none an image or named like "
            f"{', '.join(DATA_SUFFIXES[:5])}): name the files with a glob, or check the path"
        )
    for file in data:
        yield _Source(file.path, _agreed(file, detect(file), options.format), file=file)


def _agreed(file: File, found: str, asked: str) -> str:
    if asked in ("auto", found):
        return found
    if "parquet" in (asked, found):
        raise InputError(f"format={asked}, but the content of {file.path} is {found}: drop format=")
    return asked


def _file_units(
    ordinal: int, source: _Source, options: IngestOptions, pinned: Mapping[str, Pin]
) -> tuple[str, list[ReadUnit]]:
    assert source.file is not None
    file, limit = source.file, options.max_record_bytes
    checksum = pinned[file.path].checksum

    def unit(chosen: Chosen | None, **part: Any) -> ReadUnit:
        columns = None if chosen is None else chosen.to_json()
        return ReadUnit(
            ordinal, file.path, source.format, file.bytes, file.stamp, checksum, columns, part
        )

    if source.format == "wat":
        check_wat(file.path, limit)
        return "wat: HTML image links, texts alt, title, data-image-title", [unit(None)]
    if source.format == "webdataset":
        chosen = choose_tar(file.path, options.columns, limit)
        return f"webdataset: {chosen}", [unit(chosen)]
    if source.format == "jsonl":
        keys = sample_keys(file.path, limit)
        chosen = choose(keys, options.columns, file.path, images=False)
        return f"jsonl: {chosen}", [unit(chosen)]
    with open_parquet(file.path) as parquet:
        chosen = choose_typed(parquet.schema_arrow, options.columns, file.path)
        sizes = group_sizes(parquet, chosen.names)
    units = [
        unit(chosen, groups=[first, end], first_row=row)
        for first, end, row in _ranges(sizes, options.unit_bytes)
    ]
    return f"parquet: {chosen}", units


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
    ordinal: int, folder: Folder, options: IngestOptions, pinned: Mapping[str, Pin]
) -> tuple[str, list[ReadUnit]]:
    def packed(file: File) -> list[Any]:
        return [folder.relative(file), file.bytes, file.stamp, pinned[file.path].checksum]

    limit = options.max_record_bytes
    chosen = [choose_captions(file, options.columns, limit) for file in folder.captions]
    captions = [
        [*packed(file), one.to_json()] for file, one in zip(folder.captions, chosen, strict=True)
    ]
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
        units.append(ReadUnit(ordinal, folder.root, "folder", size, "", "", None, part))
    said = [f"{folder.relative(f)} ({c})" for f, c in zip(folder.captions, chosen, strict=True)]
    said += [f"{len(folder.texts)} .txt files"] if folder.texts else []
    return f"folder: {len(folder.images)} images, captions from {', '.join(said)}", units


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
