"""webdataset tar (img2dataset's layout), as a stream: nothing is unpacked, no name becomes a path.

Consecutive members with the same name up to the first dot of their last part are one sample:
an image, ``.txt``, ``.json`` (its keys are columns). Headers are parsed by the standard library;
after a header that is damaged the next good one is looked for, so damage costs what it lies in.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from curation.ingest.builder import Builder
from curation.ingest.columns import COMMON, Chosen
from curation.ingest.detect import IMAGE_SUFFIXES
from curation.ingest.files import CHUNK, Damaged, open_decoded
from curation.ingest.jsonl import parse_json
from curation.ingest.options import NONE, Columns
from curation.ingest.records import Bad, Raw
from curation.ingest.texts import flatten
from schemas.errors import InputError

BLOCK = tarfile.BLOCKSIZE
_NAME_BYTES = 2**20
_IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
_SAMPLED = 100


@dataclass
class Member:
    """One regular file of the archive; ``data`` is None if it is larger than may be held."""

    name: str
    size: int
    data: bytes | None


@dataclass
class Sample:
    """The members that share a key, by extension; of two with one extension the first counts."""

    key: str
    parts: dict[str, Member] = field(default_factory=dict)


def tar_members(stream: BinaryIO, max_bytes: int) -> Iterator[Member | str]:
    """Regular files of an archive in order; faults as text."""
    name, size, lost = "", -1, 0
    try:
        while block := _exactly(stream, BLOCK):
            if len(block) < BLOCK:
                yield "the archive ends within a header"
                return
            if not any(block):
                continue
            header = _header(block, after_fault=bool(lost))
            if header is None:
                lost += BLOCK
                continue
            if lost:
                yield f"{lost} bytes between members are no header of a member"
                lost = 0
            length = header.size if size < 0 else size
            if header.type in (b"x", b"L"):
                data = _payload(stream, header.size, _NAME_BYTES)
                if data is None:
                    yield f"an extended header of {header.size} bytes, limit {_NAME_BYTES}"
                    continue
                found_name, found_size = _extended(header.type, data)
                name, size = found_name or name, found_size if found_size >= 0 else size
                continue
            if header.isreg() and header.type != b"S":
                yield Member(name or header.name, length, _payload(stream, length, max_bytes))
            else:
                _payload(stream, length if header.type != b"5" else 0, 0)
            name, size = "", -1
    except Damaged as error:
        yield str(error)
    except EOFError as error:
        yield f"the archive ends early: {error}"
    if lost:
        yield f"{lost} bytes at the end are no header of a member"


def _header(block: bytes, after_fault: bool) -> tarfile.TarInfo | None:
    # Data can look like a header of the oldest kind; when searching, only ustar's count.
    if after_fault and block[257:262] != b"ustar":
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return None
    return header if header.size >= 0 else None


def _exactly(stream: BinaryIO, size: int) -> bytes:
    parts, left = [], size
    while left:
        part = stream.read(min(left, CHUNK))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _payload(stream: BinaryIO, size: int, limit: int) -> bytes | None:
    """Data of a member, or None if it is over the limit; either way the stream moves past it."""
    padded = -(-size // BLOCK) * BLOCK
    if size <= limit:
        data = _exactly(stream, padded)
        if len(data) < size:
            raise EOFError(f"a member of {size} bytes has {len(data)}")
        return data[:size]
    while padded:
        part = stream.read(min(padded, CHUNK))
        if not part:
            raise EOFError(f"a member of {size} bytes lacks {padded}")
        padded -= len(part)
    return None


def _extended(kind: bytes, data: bytes) -> tuple[str, int]:
    """(name, size) that a long-name or pax header gives the next member, or "" and -1."""
    if kind == b"L":
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape"), -1
    name, size = "", -1
    while data:
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or not len(length) < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit() and len(value) < 19:
            size = int(value)
        data = data[int(length) :]
    return name, size


def samples(stream: BinaryIO, max_bytes: int) -> Iterator[Sample | str]:
    """Samples of an archive in order; faults as text."""
    sample: Sample | None = None
    for member in tar_members(stream, max_bytes):
        if isinstance(member, str):
            if sample is not None:
                yield sample
                sample = None
            yield member
            continue
        folder, _, base = member.name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not stem or not dot:
            continue
        key = f"{folder}/{stem}" if folder else stem
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key)
        extension = extension.lower()
        if extension in ("txt", "json", *_IMAGES):
            sample.parts.setdefault(extension, member)
    if sample is not None:
        yield sample


def choose_tar(path: str, options: Columns, max_bytes: int) -> Chosen:
    """Choose what holds texts and URLs from an archive's first samples. Raises InputError."""
    fields: dict[str, None] = {}
    seen = 0
    with open_decoded(path) as stream:
        for sample in samples(stream, max_bytes):
            if isinstance(sample, str):
                continue
            fields.update(dict.fromkeys(sample.parts))
            fields.update(dict.fromkeys(_json(sample)[0]))
            seen += 1
            if seen == _SAMPLED:
                break
    if not seen:
        raise InputError(
            f"{path} holds no sample (image, .txt, .json of one name): is it webdataset?"
        )
    found = ", ".join(fields) or "nothing"
    for meaning, given in (("text", options.texts), ("url", (options.url,)), ("id", (options.id,))):
        for name in given:
            if name not in ("", NONE, "__key__") and name not in fields:
                raise InputError(
                    f"columns.{meaning}={name}: the first {seen} samples of {path} have no such "
                    f"part or JSON key. They have: {found}"
                )
    texts = options.texts or tuple(
        next(([name] for name in ("txt", *COMMON["text"]) if name in fields), [])
    )
    if not texts:
        raise InputError(
            f"{path}: the first {seen} samples have no .txt and no caption in .json. They have: "
            f"{found}. Name the JSON key with columns.text=NAME"
        )
    url = options.url or next((name for name in COMMON["url"] if name in fields), "")
    return Chosen(
        url="" if url == NONE else url,
        texts=texts,
        image="" if options.image == NONE else options.image,
        id="" if options.id == NONE else options.id,
        score=options.score,
        sha256="",
        text_format=options.text_format,
    )


def read_tar(path: str, chosen: Chosen, max_bytes: int) -> Iterator[Raw]:
    """RAW tables of an archive; ``position`` numbers its samples and what could not be read."""
    builder, position = Builder(), 0
    with open_decoded(path) as stream:
        for sample in samples(stream, max_bytes):
            size = 0 if isinstance(sample, str) else sum(m.size for m in sample.parts.values())
            if not builder.fits(size):
                yield builder.take()
            if isinstance(sample, str):
                builder.refuse(Bad(position, "bad_record", sample))
            else:
                add_sample(builder, position, sample, chosen)
            position += 1
            if builder.full:
                yield builder.take()
    if len(builder):
        yield builder.take()


def _json(sample: Sample) -> tuple[dict[str, Any], str]:
    """The sample's JSON object, and what is wrong with it."""
    part = sample.parts.get("json")
    if part is None or part.data is None:
        return {}, ""
    try:
        value = parse_json(part.data)
    except ValueError as error:
        return {}, f"{part.name} is not valid JSON ({error})"
    if not isinstance(value, dict):
        return {}, f"{part.name} is no JSON object"
    return value, ""


def add_sample(builder: Builder, position: int, sample: Sample, chosen: Chosen) -> None:
    """Add one sample to the builder."""
    values, fault = _json(sample)
    wrong = ("bad_record", fault) if fault else None
    image = next(
        (
            sample.parts[kind]
            for kind in ([chosen.image] if chosen.image else _IMAGES)
            if kind in sample.parts
        ),
        None,
    )
    for part in sample.parts.values():
        if part.data is None:
            reason = "image_too_large" if part is image else "bad_record"
            wrong = (reason, f"{part.name} has {part.size} bytes, more than may be held")
    pairs: list[tuple[str, bytes | None]] = []
    text = sample.parts.get("txt")
    try:
        for name in chosen.texts:
            if name == "txt" and text is not None:
                pairs += _plain(text.data or b"", chosen.text_format)
            else:
                pairs += flatten(values.get(name), name)
        url = values.get(chosen.url) if chosen.url else None
        row_id = sample.key if chosen.id == "__key__" else values.get(chosen.id)
        score = values.get(chosen.score) if chosen.score else None
        score = None if score is None else float(score)
    except (ValueError, TypeError, OverflowError) as error:
        wrong, url, row_id, score = ("bad_record", str(error)), None, None, None
    builder.add(
        position,
        pairs,
        url=url.encode("utf-8", "surrogatepass") if isinstance(url, str) else None,
        image=image.data if image is not None else None,
        path=image.name.encode("utf-8", "replace").decode() if image is not None else None,
        id=None if row_id is None else str(row_id).encode("utf-8", "surrogatepass"),
        score=score,
        wrong=wrong,
    )


def _plain(data: bytes, text_format: str) -> list[tuple[str, bytes | None]]:
    if text_format in ("json", "list"):
        return flatten(parse_json(data), "txt") if data.strip() else []
    return [("txt", data.strip())]
