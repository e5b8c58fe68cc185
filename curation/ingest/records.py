"""From what a reader found to RECORDS: UTF-8, identity, images; the rest become dead letters.

Readers yield :class:`Raw`: rows as they lie in the file, text still binary. ``finish`` checks
them column by column and returns an Outcome whose ledger counts every row that came in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.guard import dead_letters
from curation.images import Decoder
from curation.ingest.texts import RAW_TEXTS, Column, invalid_utf8
from schemas.ids import ID_TYPE, image_id, image_ids_of_urls
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import IMAGE, RECORDS

STAGE = "records"
LETTER_BYTES = 16 * 2**20
"""Bytes of one value that a dead letter keeps; more can be had from the input file itself."""

_FIELDS: list[Any] = [
    pa.field("position", pa.int64()),  # number of the record in its file
    pa.field("url", pa.binary()),
    pa.field("texts", RAW_TEXTS),
    pa.field("image", pa.binary()),
    pa.field("path", pa.string()),  # name of the image where it has one
    pa.field("id", pa.binary()),
    pa.field("sha256", pa.binary(32)),
    pa.field("score", pa.float64()),
    pa.field("raw", pa.binary()),  # of records that could not be parsed: the bytes as found,
    pa.field("read_as", pa.string()),  # and as what they were read (JSON: format, columns)
    pa.field("wrong", pa.string()),  # what the reader found wrong: "reason: error"
]
RAW = pa.schema(_FIELDS)
"""A record before any check: also the schema of the rows in ingest's dead letters."""

_NULL = pa.scalar(None, pa.binary())


@dataclass
class Bad:
    """A piece of input that is no record: ``count`` records of the file, as far as one can tell."""

    position: int
    reason: str
    error: str
    raw: bytes = b""
    count: int = 1
    read_as: str | None = None


@dataclass
class Raw:
    """What a reader found: RAW rows (columns may be missing), and what could not be read.

    ``wrong`` lists rows of the table (by index) that may not pass, with reason and error.
    """

    table: pa.Table
    bad: list[Bad] = field(default_factory=list)
    wrong: list[tuple[int, str, str]] = field(default_factory=list)


def raw_table(columns: Mapping[str, Column], rows: int) -> pa.Table:
    """A RAW table from some of its columns; the others are null."""
    arrays = [
        columns[f.name].cast(f.type) if f.name in columns else pa.nulls(rows, f.type) for f in RAW
    ]
    return pa.table(arrays, schema=RAW)


class _Refused:
    """First reason and error of each refused row."""

    def __init__(self) -> None:
        self.why: dict[int, tuple[str, str]] = {}

    def add(self, rows: Sequence[int], reason: str, error: str) -> None:
        for row in rows:
            self.why.setdefault(row, (reason, error))

    def mask(self, n: int) -> np.ndarray:
        mask = np.zeros(n, dtype=bool)
        mask[list(self.why)] = True
        return mask


def finish(raw: Raw, *, file: int, source: str, decoder: Decoder) -> Outcome:
    """RECORDS rows of one piece of input, in its order, and dead letters for what is none.

    ``file`` is the ordinal of the input among those pinned, ``source`` its name. Records without
    any text are counted as rejected (``empty_text``) and leave no dead letter: nothing in them
    could be replayed.
    """
    table = raw.table.combine_chunks()
    n = table.num_rows
    refused = _Refused()
    for row, reason, error in raw.wrong:
        refused.add([row], reason, error)
    _check_utf8(table, refused)
    columns = {name: _whole(table.column(name)) for name in RAW.names}
    columns["wrong"] = _wrong_column(n, raw.wrong)
    named = np.zeros(n, dtype=bool)
    for name in ("url", "image", "id"):
        present = _present(columns[name])
        named |= present
        if not present.all():  # empty means as little as null
            columns[name] = pc.if_else(pa.array(present), columns[name], _NULL)
    refused.add(
        np.flatnonzero(~named).tolist(),
        "no_url_no_image",
        "no URL, no image and no id column: set columns.url, columns.image or columns.id",
    )
    counts = np.diff(columns["texts"].offsets.to_numpy()) if n else np.zeros(0, np.int64)
    textless = (counts == 0) | columns["texts"].is_null().to_numpy(zero_copy_only=False)
    textless &= ~refused.mask(n)
    sha, phash = _check_images(columns["image"], ~(refused.mask(n) | textless), refused, decoder)
    mask = refused.mask(n)
    keep = np.flatnonzero(~(mask | textless))
    kept = {name: column.take(pa.array(keep)) for name, column in columns.items()}
    rows = len(keep)
    with_image: Column = pc.is_valid(kept["image"])
    out = pa.table(
        {
            "image_id": _identify(kept, [sha[i] for i in keep] if sha else None),
            "url": kept["url"].cast(pa.string()),
            "texts": kept["texts"].cast(RECORDS.arrow.field("texts").type),
            "image": pa.StructArray.from_arrays(
                [kept["image"], kept["path"]], fields=list(IMAGE), mask=pc.invert(with_image)
            ),
            "sha256": _sha_column(kept["sha256"], sha, keep),
            "phash": (
                pc.if_else(with_image, pa.array(phash[keep]), None)
                if sha
                else pa.nulls(rows, pa.uint64())
            ),
            "score": kept["score"],
            "file": pa.array(np.full(rows, file, np.int32)),
            "position": kept["position"],
        }
    )
    return Outcome(
        table=RECORDS.validate(out),
        ledger=_ledger(n, raw.bad, refused, int(textless.sum())),
        dead=_letters(columns, raw.bad, refused, source),
        stats={
            "records": rows,
            "with_url": rows - out["url"].null_count,
            "with_image": rows - kept["image"].null_count,
            "texts": int(pc.sum(pc.list_value_length(out["texts"])).as_py() or 0),
        },
    )


def _whole(column: pa.ChunkedArray) -> Column:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _present(column: Column) -> np.ndarray:
    """bool[n]: neither null nor empty."""
    lengths: Column = pc.binary_length(column)
    return lengths.fill_null(0).to_numpy(zero_copy_only=False) > 0


def _check_utf8(table: pa.Table, refused: _Refused) -> None:
    for row in np.flatnonzero(invalid_utf8(_whole(table.column("url")))).tolist():
        refused.add([row], "bad_utf8", "the URL is not valid UTF-8")
    lists = _whole(table.column("texts"))
    if len(lists) == 0:
        return
    entries = lists.flatten()
    bad = invalid_utf8(entries.field("text"))
    if bad.any():
        owners: Column = pc.list_parent_indices(lists)
        for item in np.flatnonzero(bad):
            key = entries.field("key")[int(item)].as_py()
            refused.add([owners[int(item)].as_py()], "bad_utf8", f"text {key!r} is not valid UTF-8")


def _check_images(
    images: Column, wanted: np.ndarray, refused: _Refused, decoder: Decoder
) -> tuple[list[bytes | None], np.ndarray]:
    """SHA-256 of each image and its perceptual hash; ([], []) if the table has no image."""
    wanted = wanted & images.is_valid().to_numpy(zero_copy_only=False)
    if not wanted.any():
        return [], np.zeros(0, np.uint64)
    seen = decoder.check(pc.if_else(pa.array(wanted), images, _NULL))
    for row, reason in enumerate(seen.reason):
        if reason is not None:
            refused.add([row], reason, seen.error[row] or reason)
    return seen.sha256, seen.phash


def _identify(kept: dict[str, Column], sha: list[bytes | None] | None) -> pa.Array:
    """Ids: by the image's bytes where they are at hand, else its URL, else the key column."""
    if sha is None and bool(_present(kept["url"]).all()):
        return image_ids_of_urls(kept["url"])
    keys, urls = kept["id"].to_pylist(), kept["url"].to_pylist()
    ids = []
    for row in range(len(keys)):
        if sha is not None and sha[row] is not None:
            ids.append(image_id(sha256=sha[row]))
        elif urls[row]:
            ids.append(image_id(url=urls[row].decode()))
        else:
            ids.append(image_id(key=keys[row]))
    return pa.array(ids, ID_TYPE)


def _wrong_column(n: int, wrong: Sequence[tuple[int, str, str]]) -> Column:
    said: list[str | None] = [None] * n
    for row, reason, error in wrong:
        said[row] = said[row] or f"{reason}: {error}".encode("utf-8", "replace").decode()
    return pa.array(said, pa.string())


def _sha_column(given: Column, sha: list[bytes | None], keep: np.ndarray) -> Column:
    if not sha:
        return given
    own = pa.array([sha[i] for i in keep], pa.binary(32))
    return pc.coalesce(own, given)


def _ledger(n: int, bad: list[Bad], refused: _Refused, textless: int) -> Ledger:
    ledger = Ledger()
    ledger.add("record", "in", "", n + sum(b.count for b in bad))
    for reason, _ in refused.why.values():
        ledger.add("record", "rejected", reason, 1)
    for piece in bad:
        ledger.add("record", "rejected", piece.reason, piece.count)
    if textless:
        ledger.add("record", "rejected", "empty_text", textless)
    return ledger


def _letters(
    columns: dict[str, Column], bad: list[Bad], refused: _Refused, source: str
) -> pa.Table | None:
    """Dead letters in the order of positions."""
    if not bad and not refused.why:
        return None
    rows = sorted(refused.why)
    table = pa.table([columns[name] for name in RAW.names], schema=RAW)
    parts = [_bounded(table.take(pa.array(rows, pa.int64())))]
    reasons = [refused.why[row][0] for row in rows]
    errors = [refused.why[row][1] for row in rows]
    if bad:
        parts.append(
            raw_table(
                {
                    "position": pa.array([b.position for b in bad], pa.int64()),
                    "raw": pa.array([b.raw[:LETTER_BYTES] or None for b in bad], pa.binary()),
                    "read_as": pa.array([b.read_as for b in bad], pa.string()),
                },
                len(bad),
            )
        )
        reasons += [b.reason for b in bad]
        errors += [b.error for b in bad]
    whole = pa.concat_tables(parts)
    positions = whole.column("position").to_numpy()
    order = np.argsort(positions, kind="stable")
    return dead_letters(
        whole,
        order.tolist(),
        stage=STAGE,
        reasons=[reasons[i] for i in order],
        errors=[errors[i] for i in order],
        source=source,
        positions=positions[order].tolist(),
    )


def _bounded(table: pa.Table) -> pa.Table:
    """Images over :data:`LETTER_BYTES` as null: what was refused for size is not copied about."""
    image = _whole(table.column("image"))
    lengths: Column = pc.binary_length(image)
    fits = pa.array(lengths.fill_null(0).to_numpy(zero_copy_only=False) <= LETTER_BYTES)
    return table.set_column(RAW.get_field_index("image"), "image", pc.if_else(fits, image, _NULL))
