"""What became of one URL of a fetch, and the answer that decided it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflows.report.lookup import rows_of_image
from dataflows.report.source import Run
from schemas.reasons import REASONS


def tell(run: Run, image: bytes) -> list[str]:
    """One line a stage for an image id; empty if the fetch was not asked for it.

    Cost: row groups whose bounds admit the id; for a refusal the dead letters are read up to it.
    """
    asked = _rows(run, "units", image)
    lines = []
    for row in asked:
        part = f", one of {row['share']} units of its host" if row["share"] > 1 else ""
        lines.append(f"units: {row['url']}, host {row['host']!r}, unit {row['unit']}{part}")
    came = []
    for row in _rows(run, "fetched", image):
        size = f"{row['width']} x {row['height']}"
        before = f"{row['original_width']} x {row['original_height']}"
        place = f"shard {row['_shard']}, row {row['_row']}"
        came.append(
            f"fetched: {place}, {size} pixels (sent: {before}), SHA-256 {row['sha256'].hex()}"
        )
    if asked and not came:
        came = list(_refusals(run, image))
    if asked and not came:
        came = ["fetched: not there and not refused: an image of an evaluation set"]
    return [*lines, *came]


def _rows(run: Run, name: str, image: bytes) -> list[dict[str, Any]]:
    found = rows_of_image(run, name, image)
    return found.to_pylist() if found is not None else []


def _refusals(run: Run, image: bytes) -> Iterator[str]:
    for table in run.tables("fetched.dead_letters", ["reason", "error", "row"]):
        hits = pc.match_substring(table["row"], image)
        for letter in table.filter(hits).to_pylist():
            with pa.ipc.open_stream(letter["row"]) as stream:
                row = stream.read_all().to_pylist()[0]
            if row["image_id"] != image:
                continue
            tries = f"{row['attempts']} tr{'y' if row['attempts'] == 1 else 'ies'}"
            reason = letter["reason"]
            yield f"fetched: {REASONS[reason]}: {letter['error']} ({tries}) [{reason}]"
            return
