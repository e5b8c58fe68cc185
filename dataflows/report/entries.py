"""Texts and numbers of a few metadata entries, from the balance (else the metadata) dataset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflows.report.source import Run


@dataclass(frozen=True)
class EntryFact:
    """Text of an entry and, once balanced, its count and probability."""

    text: str
    count: int | None = None
    probability: float | None = None


def entry_facts(run: Run, key: str, entries: Iterable[int] | np.ndarray) -> dict[int, EntryFact]:
    """Facts of every named entry; the text is `entry 123` for one that is not in this run.

    Cost: the row groups of that language, until all are found.
    """
    ids = sorted({int(entry) for entry in entries})
    found = {entry: EntryFact(f"entry {entry}") for entry in ids}
    if not ids:
        return found
    wanted = pa.array(ids, pa.uint32())
    left = len(ids)
    name = "balance" if run.get("balance") is not None else "metadata"
    columns = ["metadata", "entry", "text"]
    if name == "balance":
        columns += ["count", "probability"]
    for table in run.tables_of(name, "metadata", [key], columns):
        here = pc.and_(pc.equal(table["metadata"], key), pc.is_in(table["entry"], value_set=wanted))
        for row in table.filter(here).to_pylist():
            found[row["entry"]] = EntryFact(row["text"], row.get("count"), row.get("probability"))
            left -= 1
        if left <= 0:
            break
    return found


def entry_texts(run: Run, key: str, entries: Iterable[int] | np.ndarray) -> dict[int, str]:
    """Texts of the named entries."""
    return {entry: fact.text for entry, fact in entry_facts(run, key, entries).items()}
