"""What came of a unit's URLs: pictures to FETCHED rows, refusals to the ledger and dead letters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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

Report = Callable[[int], None]


def ask(
    rows: pa.Table, options: Mapping[str, Any], share: int, report: Report | None = None
) -> Outcome:
    """Fetch FETCH_UNITS rows (each image id once) and account for every one of them.

    Rows of the result by (unit, image_id). ``share`` units fetch from these hosts at once, and each
    takes that part of their rate. ``report`` is told how many are through, as they come. Raises
    IntegrityError if not every row has exactly one answer.
    """
    from curation.fetch import FetchOptions, fetch

    parts: list[pa.Table] = []
    through = 0
    for part in fetch(rows.select(["image_id", "url"]), FetchOptions(**options), share=share):
        parts.append(part)
        through += part.num_rows
        if report is not None:
            report(through)
    answers = pa.concat_tables(parts).drop_columns(["url"])
    if through != rows.num_rows or id_sum(answers["image_id"]) != id_sum(rows["image_id"]):
        raise IntegrityError(
            f"{rows.num_rows} URLs were asked for and {through} answers came, or those of others: this "
            "is a fault of the fetcher, not of the input; nothing of this unit was kept"
        )
    # Row numbers travel through the sort by id, so that both sides stand in the same order.
    rows = rows.take(pa.array(order_by(rows["image_id"])))
    answers = answers.take(pa.array(order_by(answers["image_id"]))).drop_columns(["image_id"])
    for name in answers.column_names:
        rows = rows.append_column(name, answers[name])
    return account(rows)


def account(rows: pa.Table) -> Outcome:
    """The outcome of rows with their answers: FETCH_UNITS columns and those of ``fetch``."""
    reasons = rows["reason"].to_pylist()
    ledger = Ledger()
    ledger.add("image", "in", "", rows.num_rows, id_sum(rows["image_id"]))
    good = pc.equal(rows["reason"], "")
    refused = rows.filter(pc.invert(good))
    for reason in sorted(set(reasons) - {""}):
        ids = refused.filter(pc.equal(refused["reason"], reason))["image_id"]
        ledger.add("image", "rejected", reason, len(ids), id_sum(ids))
    kept = rows.filter(good).select(FETCHED.arrow.names)
    kept = FETCHED.validate(kept.sort_by([(name, "ascending") for name in FETCHED.sort_by]))
    ledger.add("image", "out", "", kept.num_rows, id_sum(kept["image_id"]))
    dead = dead_letters(
        refused.select(list(LETTER)),
        range(refused.num_rows),
        stage=STAGE,
        reasons=refused["reason"].to_pylist(),
        errors=_errors(refused),
        source=refused["host"].to_pylist(),
    )
    stats = {
        "with_image": kept.num_rows,
        "bytes": pc.sum(pc.binary_length(pc.struct_field(kept["image"], "bytes"))).as_py() or 0,
    }
    return Outcome(kept, ledger, dead, stats)


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
