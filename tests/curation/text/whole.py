"""Reads an input of texts to its end, outside any pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.text.documents import Sieve, read_documents
from curation.text.options import TextOptions
from curation.text.plan import TextUnit, plan_texts
from curation.text.reading import Render
from curation.text.sources import find_texts, pin_texts, source_names
from schemas.ledger import Ledger
from schemas.step import merge_stats
from schemas.text_schemas import DOCUMENTS


@dataclass
class Whole:
    """Everything that came out of an input."""

    table: pa.Table
    ledger: Ledger
    units: list[TextUnit]
    stats: dict[str, Any]
    letters: list[dict[str, Any]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """Texts in order."""
        return self.table["text"].to_pylist()

    @property
    def rejected(self) -> dict[str, int]:
        """Rejected documents by reason."""
        rows = self.ledger.rows()
        return {row["reason"]: row["count"] for row in rows if row["kind"] == "rejected"}


def whole(
    place: Path | str,
    sieve: Sieve | None = None,
    validation: float = 0.0,
    render: Render | None = None,
    **options: Any,
) -> Whole:
    """Plan and read; the ledger must balance."""
    settings = TextOptions(**options)
    files = find_texts(str(place))
    pinned = pin_texts(files)
    units = [
        TextUnit.from_json(unit.to_json())
        for unit in plan_texts(pinned, source_names(files, {}), settings)
    ]
    ledger, tables, letters = Ledger(), [DOCUMENTS.empty()], []
    stats: dict[str, Any] = {}
    for unit in units:
        for outcome in read_documents(unit, settings, sieve or Sieve(), validation, render):
            tables.append(outcome.table)
            ledger.merge(outcome.ledger)
            stats = merge_stats(stats, outcome.stats)
            letters += outcome.dead.to_pylist() if outcome.dead is not None else []
    table = pa.concat_tables(tables)
    ledger.check(out={"document": table.num_rows})
    return Whole(table, ledger, units, stats, letters)
