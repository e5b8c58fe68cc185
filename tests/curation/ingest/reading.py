"""Reads an input to its end, outside any pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.ingest import Columns, IngestOptions, ReadUnit, find, notes, pin_sources, plan, read
from schemas.ledger import Ledger
from schemas.table_schemas import RECORDS


@dataclass
class Whole:
    """Everything that came out of an input."""

    table: pa.Table
    ledger: Ledger
    units: list[ReadUnit]
    notes: list[str]
    tables: list[pa.Table]
    letters: list[dict[str, Any]] = field(default_factory=list)

    def texts(self) -> list[list[tuple[str, str]]]:
        """(key, text) pairs of each record."""
        rows = self.table.column("texts").to_pylist()
        return [[(pair["key"], pair["text"]) for pair in row] for row in rows]


def whole(source: Path | str, options: IngestOptions | None = None, **columns: str) -> Whole:
    """Plan and read; the ledger must balance."""
    options = options or IngestOptions(columns=Columns(**columns))
    units = plan(pin_sources(find(str(source), options.format)), options)
    units = [ReadUnit.from_json(unit.to_json()) for unit in units]
    ledger, tables, letters = Ledger(), [RECORDS.empty()], []
    for unit in units:
        for outcome in read(unit, options):
            tables.append(outcome.table)
            ledger.merge(outcome.ledger)
            letters += outcome.dead.to_pylist() if outcome.dead is not None else []
    table = pa.concat_tables(tables)
    ledger.add("record", "out", "", table.num_rows)
    ledger.check()
    return Whole(table, ledger, units, notes(units), tables[1:], letters)
