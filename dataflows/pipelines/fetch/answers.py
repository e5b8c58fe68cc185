"""What came of a unit's URLs: pictures to FETCHED rows, refusals to the ledger and dead letters."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.fetch.rows import FETCH_ROWS
from curation.guard import dead_letters
from curation.id_sets import order_by
from schemas.errors import IntegrityError
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import FETCHED

STAGE = "fetched"
LETTER = ("unit", "image_id", "url", "host", "share", "http_status", "attempts")
"""Columns of the row that a refusal's dead letter carries."""

_AT = "headrace.answer"
_PIECE_BYTES = 16 * 2**20

Report = Callable[[int], None]


def ask(
    rows: pa.Table, options: Mapping[str, Any], share: int, report: Report | None = None
) -> Iterator[Outcome]:
    """Fetch FETCH_UNITS rows (each image id once) and account for every one of them.

    First comes what :func:`account` says, then the pictures by (unit, image_id), some 16 MiB at a
    time: until all are there they lie in a file, so a unit may hold more than memory does. ``share``
    lanes fetch from these hosts at once, and each takes that part of their rate. ``report`` is told
    how many are through, as they come. Raises IntegrityError if not every row has exactly one answer.
    """
    from curation.fetch import FetchOptions, fetch

    found = fetch(rows.select(["image_id", "url"]), FetchOptions(**options), share=share)
    answers = _spilled(found, report)
    ids = answers["image_id"]
    if len(ids) != rows.num_rows or id_sum(ids) != id_sum(rows["image_id"]):
        raise IntegrityError(
            f"{rows.num_rows} URLs were asked for and {len(ids)} answers came, or those of others: "
            "this is a fault of the fetcher, not of the input; nothing of this unit was kept"
        )
    # Row numbers travel through the sort by id, so that both sides stand in the same order.
    order = order_by(ids)
    rows = rows.take(pa.array(order_by(rows["image_id"])))
    without = answers.drop_columns(["image_id", "url", "image"]).take(pa.array(order))
    for name in without.column_names:
        rows = rows.append_column(name, without[name])
    rows = rows.append_column(_AT, pa.array(order))
    yield account(rows)
    yield from _pictures(rows.filter(pc.equal(rows["reason"], "")), answers["image"].chunks)


def _spilled(tables: Iterable[pa.Table], report: Report | None) -> pa.Table:
    """The tables as one that lies in a file without a name, which no kill leaves behind."""
    through = 0
    with tempfile.TemporaryFile(prefix="headrace-") as file:
        with pa.ipc.new_file(pa.PythonFile(file, "w"), FETCH_ROWS) as writer:
            for table in tables:
                writer.write_table(table)
                through += table.num_rows
                if report is not None:
                    report(through)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


def _pictures(kept: pa.Table, images: Sequence[pa.StructArray]) -> Iterator[Outcome]:
    """FETCHED rows of what was fetched, each with its picture; few bytes at a time."""
    kept = kept.sort_by([(name, "ascending") for name in FETCHED.sort_by])
    at = kept[_AT].to_numpy()
    ends = np.cumsum([len(part) for part in images])
    sizes = [pc.binary_length(pc.struct_field(part, "bytes")).fill_null(0) for part in images]
    bytes_of = np.concatenate([[], *sizes])[at].astype(np.int64)
    pieces = np.cumsum(bytes_of) // _PIECE_BYTES
    for piece in np.unique(pieces):
        here = np.flatnonzero(pieces == piece)
        taken = []
        for row in at[here]:
            part = int(np.searchsorted(ends, row, side="right"))
            taken.append(images[part].slice(row - (ends[part] - len(images[part])), 1))
        table = kept.take(pa.array(here)).append_column("image", pa.concat_arrays(taken))
        table = FETCHED.validate(table.select(FETCHED.arrow.names))
        stats = {"with_image": len(here), "bytes": int(bytes_of[here].sum())}
        yield Outcome(table, Ledger(), stats=stats)


def account(rows: pa.Table) -> Outcome:
    """Ledger and dead letters of rows with their answers: FETCH_UNITS columns and those of ``fetch``.

    No picture is among them.
    """
    reasons = rows["reason"].to_pylist()
    ledger = Ledger()
    ledger.add("image", "in", "", rows.num_rows, id_sum(rows["image_id"]))
    good = pc.equal(rows["reason"], "")
    refused = rows.filter(pc.invert(good))
    for reason in sorted(set(reasons) - {""}):
        ids = refused.filter(pc.equal(refused["reason"], reason))["image_id"]
        ledger.add("image", "rejected", reason, len(ids), id_sum(ids))
    kept = rows.filter(good)["image_id"]
    ledger.add("image", "out", "", len(kept), id_sum(kept))
    dead = dead_letters(
        refused.select(list(LETTER)),
        range(refused.num_rows),
        stage=STAGE,
        reasons=refused["reason"].to_pylist(),
        errors=_errors(refused),
        source=refused["host"].to_pylist(),
    )
    return Outcome(FETCHED.empty(), ledger, dead, {"with_image": 0, "bytes": 0})


def _errors(refused: pa.Table) -> list[str]:
    """Each refusal's message, with the HTTP status before it where there was one."""
    found = []
    for status, error in zip(
        refused["http_status"].to_pylist(), refused["error"].to_pylist(), strict=True
    ):
        text = error or ""
        told = not status or str(status) in text
        found.append(text if told else f"HTTP {status}{': ' if text else ''}{text}")
    return found
