"""JSON lines of URL and text, plain or compressed: one bad line costs that line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from curation.ingest.builder import Builder, Pairs
from curation.ingest.columns import Chosen
from curation.ingest.files import CHUNK, Damaged, open_decoded
from curation.ingest.records import Bad, Raw
from curation.ingest.texts import flatten
from schemas.errors import InputError

SAMPLED_LINES = 1000
KEPT_OF_BAD = 2**20
"""Bytes that a dead letter keeps of a line that is too long to be held."""


@dataclass
class Line:
    """A line that is not blank: number (from 0), bytes (only a beginning, if cut), true length."""

    number: int
    data: bytes
    length: int
    error: str = ""


def lines(stream: BinaryIO, max_bytes: int) -> Iterator[Line]:
    """Lines of a stream in bounded memory. A stream that breaks ends in a line that says so."""
    number, rest, skipped = 0, b"", 0
    while True:
        try:
            chunk = stream.read(CHUNK)
        except Damaged as error:
            yield Line(number, rest[:KEPT_OF_BAD], len(rest) + skipped, str(error))
            return
        first, *others = chunk.split(b"\n")
        if skipped or len(rest) > max(
            max_bytes, KEPT_OF_BAD
        ):  # hold no more of it, but find its end
            whole = skipped + len(rest) + len(first)
            rest += first[: max(0, KEPT_OF_BAD - len(rest))]
            rest = rest[:KEPT_OF_BAD]
            skipped = whole - len(rest)
        else:
            rest += first
        if chunk and not others:
            continue
        if rest.strip():
            yield Line(number, rest, len(rest) + skipped)
        number, skipped, rest = number + 1, 0, b""
        if not chunk:
            return
        for piece in others[:-1]:
            if piece.strip():
                yield Line(number, piece, len(piece))
            number += 1
        rest = others[-1]


def parse_json(data: bytes) -> Any:
    """A JSON value. Raises ValueError.

    orjson refuses lone surrogates, which browsers write when they cut a string; the standard
    library takes them, so that a record with one costs its own text only.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"\\u" not in data:
            raise
        try:
            return json.loads(data)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def json_type(value: object) -> str:
    """What JSON calls a parsed value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")


def sample_keys(path: str, max_bytes: int) -> list[str]:
    """Keys of a file's first objects in order of appearance. Raises InputError if it has none."""
    keys: dict[str, None] = {}
    seen = 0
    with open_decoded(path) as stream:
        for line in lines(stream, max_bytes):
            seen += 1
            try:
                value = parse_json(line.data) if not line.error else None
            except ValueError:
                value = None
            if isinstance(value, dict):
                keys.update(dict.fromkeys(value))
            if seen == SAMPLED_LINES:
                break
    if not keys:
        raise InputError(
            f"{path}: none of its first {seen} lines is a JSON object with keys, as JSON lines of "
            "URL and text are; check the file or set format="
        )
    return list(keys)


def read_jsonl(path: str, chosen: Chosen, max_bytes: int) -> Iterator[Raw]:
    """RAW tables of a file; ``position`` is the line's number from 0, blank lines counted."""
    builder = Builder()
    with open_decoded(path) as stream:
        for line in lines(stream, max_bytes):
            if not builder.fits(line.length):
                yield builder.take()
            add_line(builder, line, chosen, max_bytes)
            if builder.full:
                yield builder.take()
    if len(builder):
        yield builder.take()


def add_line(builder: Builder, line: Line, chosen: Chosen, max_bytes: int) -> None:
    """Add one line to the builder, as a record or as a bad one."""
    if line.error:
        lost = f"{line.error}; line {line.number + 1} and all after it are lost"
        return builder.refuse(Bad(line.number, "bad_record", lost, line.data))
    if line.length > max_bytes:
        error = f"line {line.number + 1} has {line.length} bytes, limit {max_bytes}"
        return builder.refuse(Bad(line.number, "bad_record", error, line.data[:KEPT_OF_BAD]))
    try:
        value = parse_json(line.data)
    except ValueError as error:
        reason, why = _unparsed(line.data, error)
        error_text = f"line {line.number + 1}: {why}"
        return builder.refuse(Bad(line.number, reason, error_text, line.data))
    if not isinstance(value, dict):
        error_text = f"line {line.number + 1} is JSON {json_type(value)}, not an object"
        return builder.refuse(Bad(line.number, "bad_record", error_text, line.data))
    try:
        fields = _fields(value, chosen)
    except (ValueError, TypeError, OverflowError) as error:
        error_text = f"line {line.number + 1}: {error}"
        return builder.refuse(Bad(line.number, "bad_record", error_text, line.data))
    return builder.add(line.number, **fields)


def _unparsed(data: bytes, error: ValueError) -> tuple[str, str]:
    try:
        data.decode()
    except UnicodeDecodeError as fault:
        return "bad_utf8", f"not valid UTF-8 ({fault.reason} at byte {fault.start})"
    return "bad_record", f"not valid JSON ({error})"


def _fields(value: dict[str, Any], chosen: Chosen) -> dict[str, Any]:
    """The builder's arguments for one parsed object. Raises ValueError naming key and value."""
    pairs: list[tuple[str, bytes | None]] = []
    for name in chosen.texts:
        pairs += _texts(value.get(name), name, chosen.text_format)
    fields: dict[str, Any] = {"texts": pairs}
    if chosen.url:
        fields["url"] = _bytes(value.get(chosen.url), chosen.url)
    if chosen.id:
        row_id = value.get(chosen.id)
        fields["id"] = (
            str(row_id).encode()
            if isinstance(row_id, int) and not isinstance(row_id, bool)
            else _bytes(row_id, chosen.id)
        )
    if chosen.score:
        score = value.get(chosen.score)
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
            raise ValueError(f"{chosen.score!r} is {score!r:.80}, not a number")
        fields["score"] = None if score is None else float(score)
    if chosen.sha256:
        fields["sha256"] = _digest(value.get(chosen.sha256), chosen.sha256)
    return fields


def _texts(value: object, name: str, text_format: str) -> Pairs:
    if text_format in ("json", "list") and isinstance(value, str) and value:
        return flatten(parse_json(value.encode("utf-8", "surrogatepass")), name)
    return flatten(value, name)


def _bytes(value: object, name: str) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is {value!r:.80}, not a string")
    return value.encode("utf-8", "surrogatepass")


def _digest(value: object, name: str) -> bytes | None:
    if value is None or value == "":
        return None
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ValueError(f"{name!r} is {value!r:.80}, not 64 hex digits")
    return digest
