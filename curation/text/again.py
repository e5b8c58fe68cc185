"""Records of an input read once more, by their places: dead letters tried again, what became of one.

Files are the truth: a place is a file and the position in it that DOCUMENTS and dead letters hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.ingest.files import File, unchanged
from curation.text.documents import Sieve, finish
from curation.text.options import TextOptions
from curation.text.plan import TextUnit
from curation.text.reading import RawTexts, Render, raw_texts
from schemas.ledger import Ledger
from schemas.step import Outcome, merge_stats
from schemas.table_schemas import DEAD_LETTERS
from schemas.text_schemas import DOCUMENTS

LOST = "bad_parquet_row"
"""Pieces of a file that hold many rows or none: they stay lost while the file is the same."""


def read_places(
    units: Sequence[TextUnit],
    places: Mapping[str, Set[int]],
    options: TextOptions,
    render: Render | None = None,
) -> Iterator[tuple[TextUnit, RawTexts]]:
    """What stands at positions of files, by path: tables with those rows, in the order of the units.

    Raises InputError for a file that is not what was pinned. Cost: the units of those files are
    read, as far as the last place.
    """
    for unit in units:
        left = set(places.get(unit.path, ()))
        if not left:
            continue
        unchanged(File(unit.path, unit.bytes, unit.stamp), unit.checksum)
        for raw in raw_texts(unit, options, render):
            mine = np.isin(raw.table["position"].to_numpy(), np.fromiter(left, np.int64))
            bad = [piece for piece in raw.bad if piece.position in left]
            if not mine.any() and not bad:
                continue
            found = RawTexts(raw.table.filter(pa.array(mine)), bad)
            left -= {piece.position for piece in bad}
            left -= set(found.table["position"].to_pylist())
            yield unit, found
            if not left:
                break


def letters_again(
    letters: pa.Table,
    units: Sequence[TextUnit],
    options: TextOptions,
    sieve: Sieve,
    validation: float,
    render: Render | None = None,
) -> tuple[Outcome, Ledger]:
    """Documents of the letters (DEAD_LETTERS) that pass now, and what the letters had counted.

    The outcome's dead letters are those that fail again, and those whose place cannot be read.
    """
    wanted: dict[str, set[int]] = {}
    rows = letters.select(["source", "position", "reason"]).to_pylist()
    for row in rows:
        if row["reason"] != LOST:
            wanted.setdefault(row["source"], set()).add(row["position"])
    seen: set[tuple[str, int]] = set()
    outcomes = []
    for unit, raw in read_places(units, wanted, options, render):
        positions = [*raw.table["position"].to_pylist(), *(piece.position for piece in raw.bad)]
        seen |= {(unit.path, position) for position in positions}
        outcomes.append(finish(raw, unit, options, sieve, validation))
    before = Ledger()
    untouched = np.zeros(len(rows), bool)
    for number, row in enumerate(rows):
        if (row["source"], row["position"]) in seen and row["reason"] != LOST:
            before.add("document", "in", "", 1)
            before.add("document", "rejected", row["reason"], 1)
        else:
            untouched[number] = True
    dead = [outcome.dead for outcome in outcomes if outcome.dead is not None]
    dead.append(letters.filter(pa.array(untouched)))
    ledger = Ledger()
    for outcome in outcomes:
        ledger.merge(outcome.ledger)
    table = pa.concat_tables([DOCUMENTS.arrow.empty_table(), *(o.table for o in outcomes)])
    whole = pa.concat_tables([part.select(DEAD_LETTERS.arrow.names) for part in dead])
    order = pc.sort_indices(whole, sort_keys=[("source", "ascending"), ("position", "ascending")])
    stats: dict[str, Any] = reduce(merge_stats, (outcome.stats for outcome in outcomes), {})
    return Outcome(table, ledger, whole.take(order), stats), before
