"""What became of one URL of a fetch, and the answer that decided it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from dataflows.report.lookup import rows_of_image
from dataflows.report.source import Run
from schemas.reasons import REASONS


def tell(run: Run, image: bytes) -> list[str]:
    """One line a stage for an image id; empty if the fetch was not asked for it.

    Cost: row groups whose bounds admit the id; for a refusal the dead letters are read up to it.
    """
    lines = []
    asked = rows_of_image(run, "units", image)
    for row in asked.to_pylist() if asked is not None else ():
        part = f", one of {row['share']} units of its host" if row["share"] > 1 else ""
        lines.append(f"units: {row['url']}, host {row['host']!r}, unit {row['unit']}{part}")
    if not lines:
        return []
    came = rows_of_image(run, "fetched", image)
    for row in came.to_pylist() if came is not None else ():
        size = f"{row['width']} x {row['height']}"
        before = f"{row['original_width']} x {row['original_height']}"
        place = f"shard {row['_shard']}, row {row['_row']}"
        lines.append(
            f"fetched: {place}, {size} pixels (sent: {before}), SHA-256 {row['sha256'].hex()}"
        )
    if len(lines) == len(asked):
        lines += _refusals(run, image)
    if len(lines) == len(asked):
        lines.append("fetched: not there and not refused: an image of an evaluation set")
    return lines


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
