"""The rows that fetching yields, one for each URL asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from schemas.schema_spec import ID, IMAGE

FETCH_ROWS = pa.schema(
    [
        pa.field("image_id", ID, nullable=False),
        pa.field("url", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("http_status", pa.int32()),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("image", IMAGE),
        pa.field("sha256", pa.binary(32)),
        pa.field("phash", pa.uint64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
    ]
)
"""Columns of :func:`curation.fetch.fetch`'s tables; ``reason`` is "" for what was fetched."""

_USER = re.compile(r"(://)[^/?#\s]*@")


@dataclass
class Row:
    """One URL and what is known of it so far."""

    image_id: bytes
    url: str | None
    reason: str = ""
    error: str | None = None
    http_status: int | None = None
    attempts: int = 0
    seconds: float = 0.0
    image: bytes | None = None
    sha256: bytes | None = None
    phash: int | None = None
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    body: bytearray = field(default_factory=bytearray, repr=False)


def table_of(rows: Sequence[Row]) -> pa.Table:
    """The rows as a FETCH_ROWS table; a user name or password in a URL is left out."""
    columns = []
    for column in FETCH_ROWS:
        values: list = [getattr(row, column.name) for row in rows]
        if column.name == "url":
            values = [None if v is None else _USER.sub(r"\1", v) for v in values]
        if column.name == "image":
            values = [None if v is None else {"bytes": v, "path": None} for v in values]
        columns.append(pa.array(values, column.type))
    return pa.table(columns, schema=FETCH_ROWS)
