"""Texts of a few metadata entries, found by language in the balance (else the metadata) dataset."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflows.report.source import Run


def entry_texts(run: Run, key: str, entries: Iterable[int] | np.ndarray) -> dict[int, str]:
    """{entry: text} of every named entry; `entry 123` for one whose text is not in this run.

    Cost: the row groups of that language, until all are found.
    """
    ids = sorted({int(entry) for entry in entries})
    found = {entry: f"entry {entry}" for entry in ids}
    if not ids:
        return found
    wanted = pa.array(ids, pa.uint32())
    left = len(ids)
    name = "balance" if run.get("balance") is not None else "metadata"
    for table in run.tables_of(name, "metadata", [key], ["metadata", "entry", "text"]):
        here = pc.and_(pc.equal(table["metadata"], key), pc.is_in(table["entry"], value_set=wanted))
        hit = table.filter(here)
        found.update(zip(hit["entry"].to_pylist(), hit["text"].to_pylist(), strict=True))
        left -= hit.num_rows
        if left <= 0:
            break
    return found
