"""Reading a unit: the one door from pinned input to RECORDS tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from curation.images import Decoder, shared_decoder
from curation.ingest.columns import Chosen
from curation.ingest.files import File, unchanged
from curation.ingest.folder import read_folder
from curation.ingest.jsonl import read_jsonl
from curation.ingest.options import IngestOptions
from curation.ingest.parquet import read_parquet
from curation.ingest.plan import ReadUnit
from curation.ingest.records import Raw, finish
from curation.ingest.tar import read_tar
from curation.ingest.wat import read_wat
from schemas.step import Outcome


def read(
    unit: ReadUnit, options: IngestOptions, decoder: Decoder | None = None
) -> Iterator[Outcome]:
    """RECORDS tables of one unit in the order of its input, each with its ledger and dead letters.

    Tables are bounded by 32 MB and rows; ``stats`` counts units by how they were read. Raises
    InputError if the file is no longer what was pinned, before the first table or after the last:
    a run that read changed input never commits.
    """
    decoder = decoder or shared_decoder(options.images)
    if unit.format != "folder":
        unchanged(_file(unit), unit.checksum)
    read_as = {unit.how: 1}
    for raw in raw_tables(unit, options):
        for bad in raw.bad:
            bad.read_as = json.dumps([unit.format, unit.chosen])
        ended = options.limit is not None and _cut(raw, options.limit)
        outcome = finish(raw, file=unit.file, source=unit.path, decoder=decoder)
        outcome.stats["read_as"] = read_as
        read_as = dict.fromkeys(read_as, 0)  # counted once a unit
        yield outcome
        if ended:
            break
    if unit.format != "folder":
        unchanged(_file(unit), unit.checksum)


def _cut(raw: Raw, limit: int) -> bool:
    """Drop what lies at or after position ``limit``; whether everything later does too."""
    positions = raw.table.column("position").to_numpy()
    ended = bool((positions >= limit).any()) or any(b.position + b.count > limit for b in raw.bad)
    if ended:
        kept = int((positions < limit).sum())  # positions ascend
        raw.table = raw.table.slice(0, kept)
        raw.wrong = [wrong for wrong in raw.wrong if wrong[0] < kept]
        raw.bad = [b for b in raw.bad if b.position < limit]
        for bad in raw.bad:
            bad.count = min(bad.count, limit - bad.position)
    return ended


def _file(unit: ReadUnit) -> File:
    return File(unit.path, unit.bytes, unit.stamp)


def raw_tables(unit: ReadUnit, options: IngestOptions) -> Iterator[Raw]:
    """What the reader of the unit's format finds in it."""
    limit = options.max_record_bytes
    chosen = Chosen.from_json(unit.chosen) if unit.chosen is not None else None
    if unit.format == "folder":
        return _folder(unit, options)
    if unit.format == "wat":
        return read_wat(unit.path, limit)
    assert chosen is not None
    if unit.format == "parquet":
        groups = range(*unit.part["groups"])
        return read_parquet(unit.path, chosen, groups, unit.part["first_row"])
    if unit.format == "jsonl":
        return read_jsonl(unit.path, chosen, limit)
    return read_tar(unit.path, chosen, limit)


def _folder(unit: ReadUnit, options: IngestOptions) -> Iterator[Raw]:
    part: Mapping[str, Any] = unit.part
    checksums: dict[str, str] = {}

    def unpacked(packed: list[Any]) -> File:
        relative, size, stamp, checksum = packed[:4]
        file = File(f"{unit.path}/{relative}", size, stamp)
        checksums[file.path] = checksum
        return file

    images = [unpacked(packed) for packed in part["images"]]
    texts = [unpacked(packed) for packed in part["texts"]]
    captions = [(unpacked(packed), Chosen.from_json(packed[4])) for packed in part["captions"]]
    for file, _ in captions:
        unchanged(file, checksums[file.path])
    return read_folder(
        unit.path,
        images,
        {file.path.rpartition(".")[0]: file for file in texts},
        captions,
        first=part["first"],
        total=part["total"],
        max_bytes=options.max_record_bytes,
        max_image_bytes=options.images.max_bytes,
        checksums=checksums,
    )
