"""A folder of images with captions: ``NAME.txt`` beside ``NAME.jpg``, and caption tables.

Caption tables are ``captions.jsonl``, ``metadata.jsonl`` and ``metadata.csv`` in any directory of
the folder, with a column ``file_name`` relative to theirs (as `datasets` has it for imagefolder).
An image may have captions of both kinds. ``position`` is the image's place among the folder's
images by path; caption rows without an image follow after the last.
"""

from __future__ import annotations

import csv
import io
import posixpath
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from curation.ingest.builder import Builder
from curation.ingest.columns import Chosen, choose
from curation.ingest.detect import CAPTION_FILES, IMAGE_SUFFIXES, suffix_of
from curation.ingest.files import Damaged, File, exists, open_decoded, open_raw, unchanged
from curation.ingest.jsonl import json_type, lines, parse_json
from curation.ingest.options import Columns
from curation.ingest.records import Bad, Raw
from curation.ingest.texts import flatten
from schemas.errors import InputError

NAMES = ("file_name", "filename", "file", "image_path", "path", "image")
"""Columns by which a caption table may name the image, best first."""


@dataclass
class Folder:
    """A folder's files by their part in it, each sorted by path."""

    root: str
    images: list[File] = field(default_factory=list)
    captions: list[File] = field(default_factory=list)  # caption tables
    texts: dict[str, File] = field(default_factory=dict)  # by path without suffix

    def relative(self, file: File) -> str:
        """A file's path inside the folder."""
        return file.path.removeprefix(self.root).lstrip("/")


def folder_of(root: str, files: Sequence[File]) -> Folder:
    """Sort a folder's files by their part in it. Raises InputError without images or captions."""
    folder = Folder(root)
    for file in files:
        base = posixpath.basename(file.path)
        if suffix_of(base, IMAGE_SUFFIXES):
            folder.images.append(file)
        elif base in CAPTION_FILES:
            folder.captions.append(file)
        elif base.lower().endswith(".txt"):
            folder.texts[posixpath.splitext(file.path)[0]] = file
    if not folder.images:
        raise InputError(
            f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)}): give a folder of images, or "
            "the data files themselves"
        )
    own = {posixpath.splitext(image.path)[0] for image in folder.images}
    folder.texts = {stem: file for stem, file in folder.texts.items() if stem in own}
    if not folder.captions and not folder.texts:
        raise InputError(
            f"{root} holds {len(folder.images)} images and no captions: put NAME.txt beside each "
            f"image, or one of {', '.join(CAPTION_FILES)} with columns file_name and text"
        )
    return folder


def choose_captions(file: File, options: Columns, max_bytes: int) -> Chosen:
    """Columns of one caption table; ``image`` is the one that names files. Raises InputError."""
    keys: dict[str, None] = {}
    for seen, (_, row) in enumerate(caption_rows(file, max_bytes)):
        if isinstance(row, dict):
            keys.update(dict.fromkeys(str(key) for key in row))
        if seen == 1000:
            break
    name = next((name for name in NAMES if name in keys), "")
    if not name:
        raise InputError(
            f"{file.path} has no column file_name that names the image. It has: "
            f"{', '.join(keys) or 'no column'}"
        )
    others = Columns(
        url=options.url, text=options.text, id=options.id or name, score=options.score,
        text_format=options.text_format,
    )  # fmt: skip
    chosen = choose(list(keys), others, file.path, images=False)
    return Chosen(**{**chosen.to_json(), "texts": chosen.texts, "image": name, "id": options.id})


def caption_rows(file: File, max_bytes: int) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """(line number, row) of a caption table; a row that cannot be parsed comes as Bad."""
    if file.path.lower().endswith(".csv"):
        yield from _csv_rows(file, max_bytes)
        return
    with open_decoded(file.path) as stream:
        for line in lines(stream, max_bytes):
            where = f"{posixpath.basename(file.path)}, line {line.number + 1}"
            try:
                if line.error or line.length > max_bytes:
                    raise ValueError(line.error or f"{line.length} bytes, limit {max_bytes}")
                row = parse_json(line.data)
                if not isinstance(row, dict):
                    raise ValueError(f"JSON {json_type(row)}, not an object")
            except ValueError as error:
                yield line.number, Bad(0, "bad_record", f"{where}: {error}", line.data)
            else:
                yield line.number, row


def _csv_rows(file: File, max_bytes: int) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    csv.field_size_limit(min(max_bytes, sys.maxsize))
    with open_decoded(file.path) as stream:
        # Bytes that are no UTF-8 pass through as surrogates: only their own row is refused later.
        text = io.TextIOWrapper(
            io.BufferedReader(cast(io.RawIOBase, stream)),
            "utf-8-sig",
            errors="surrogateescape",
            newline="",
        )
        reader = csv.DictReader(text, restkey="", restval=None)
        number = 0
        while True:
            number += 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except (csv.Error, Damaged) as error:
                where = f"{posixpath.basename(file.path)}, row {number}"
                yield number, Bad(0, "bad_record", f"{where}: {error}")
                if isinstance(error, Damaged):
                    return
                continue
            row.pop("", None)  # cells beyond the header's
            yield number, {key: _as_found(value) for key, value in row.items()}


def _as_found(value: str | None) -> str | bytes | None:
    if value is None or value.isascii():
        return value
    data = value.encode("utf-8", "surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


@dataclass
class _Captions:
    """What the caption tables say of each image (by path in the folder)."""

    rows: dict[str, list[tuple[Chosen, dict[str, Any]]]] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)


def _captions(root: str, files: Sequence[tuple[File, Chosen]], max_bytes: int) -> _Captions:
    found = _Captions()
    for file, chosen in files:
        directory = posixpath.dirname(file.path.removeprefix(root).lstrip("/"))
        for number, row in caption_rows(file, max_bytes):
            if isinstance(row, Bad):
                found.bad.append(row)
                continue
            name = row.get(chosen.image)
            where = f"{posixpath.basename(file.path)}, row {number + 1}"
            if not isinstance(name, str) or not name:
                found.bad.append(Bad(0, "bad_record", f"{where}: no {chosen.image}"))
                continue
            path = posixpath.normpath(posixpath.join(directory, name))
            found.rows.setdefault(path, []).append((chosen, row))
    return found


def read_folder(
    root: str,
    images: Sequence[File],
    texts: Mapping[str, File],
    captions: Sequence[tuple[File, Chosen]],
    *,
    first: int,
    total: int,
    max_bytes: int,
    max_image_bytes: int,
    checksums: Mapping[str, str],
) -> Iterator[Raw]:
    """RAW tables of some of a folder's images; ``first`` is the number of their first of ``total``.

    The part with the first image also reports caption rows that are bad or have no image. Each
    file must still be what ``checksums`` (by path) says, else InputError.
    """
    table = _captions(root, captions, max_bytes)
    builder = Builder()
    for position, image in enumerate(images, first):
        if not builder.fits(image.bytes):
            yield builder.take()
        relative = image.path.removeprefix(root).lstrip("/")
        text = texts.get(posixpath.splitext(image.path)[0])
        fields = _fields(table.rows.get(relative, []))
        wrong = fields.pop("wrong")
        if text is not None:
            if text.bytes > max_bytes:
                wrong = ("bad_record", f"{text.path} has {text.bytes} bytes, limit {max_bytes}")
            else:
                fields["texts"].insert(0, ("txt", _content(text, checksums).strip()))
        data = None
        if image.bytes > max_image_bytes:
            wrong = ("image_too_large", f"{image.bytes} bytes, limit {max_image_bytes}")
        else:
            data = _content(image, checksums)
        builder.add(
            position,
            image=data,
            path=relative.encode("utf-8", "replace").decode(),
            wrong=wrong,
            **fields,
        )
        if builder.full:
            yield builder.take()
    if first == 0:
        _report(builder, root, table, total)
    if len(builder):
        yield builder.take()


def _content(file: File, checksums: Mapping[str, str]) -> bytes:
    unchanged(file, checksums[file.path])
    with open_raw(file.path) as stream:
        data = stream.read()
    if len(data) != file.bytes:
        raise InputError(
            f"{file.path} changed while it was read: keep inputs still and start again"
        )
    return data


def _fields(rows: list[tuple[Chosen, dict[str, Any]]]) -> dict[str, Any]:
    fields: dict[str, Any] = {"texts": [], "wrong": None}
    for chosen, row in rows:
        try:
            for name in chosen.texts:
                value = row.get(name)
                if isinstance(value, str) and chosen.text_format in ("json", "list"):
                    value = parse_json(_encoded(value)) if value else None
                fields["texts"] += flatten(value, name)
            if chosen.url and row.get(chosen.url):
                fields["url"] = _encoded(row[chosen.url])
            if chosen.id and row.get(chosen.id) is not None:
                fields["id"] = _encoded(row[chosen.id])
            if chosen.score and row.get(chosen.score) not in (None, ""):
                fields["score"] = float(row[chosen.score])
        except (ValueError, TypeError, OverflowError) as error:
            fields["wrong"] = ("bad_record", str(error))
    return fields


def _encoded(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def _report(builder: Builder, root: str, table: _Captions, total: int) -> None:
    """Caption rows that are bad or name no image of the folder, numbered after the images."""
    position = total
    for bad in table.bad:
        bad.position = position
        builder.refuse(bad)
        position += 1
    for path, rows in table.rows.items():
        shown = not path.startswith("/") and not any(p[0] in "._" for p in path.split("/") if p)
        inside = shown and suffix_of(path, IMAGE_SUFFIXES)
        if inside and exists(f"{root}/{path}"):
            continue
        error = f"a caption names the image {path[:200]!r}, which is not in the folder"
        builder.refuse(Bad(position, "bad_record", error, count=len(rows)))
        position += 1
