"""Dead letters of an ingest, tried again: with other limits, or with code that reads more.

Images are decoded again, and lines and envelopes that could not be parsed are parsed again. What
a reader found wrong inside a parsed record stays wrong, and pieces of a file of which nothing was
kept (lost Parquet rows, damaged archives) stay lost: for those, ingest the file again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import pyarrow as pa

from curation.images import Decoder, shared_decoder
from curation.ingest.builder import Builder
from curation.ingest.columns import Chosen
from curation.ingest.jsonl import Line, add_line
from curation.ingest.options import IngestOptions
from curation.ingest.records import RAW, Bad, Raw, finish
from curation.ingest.wat import add_piece
from schemas.ledger import Ledger
from schemas.step import Outcome, merge_stats
from schemas.table_schemas import DEAD_LETTERS


def read_again(
    letters: pa.Table,
    rows: pa.Table,
    files: Mapping[str, int],
    options: IngestOptions,
    decoder: Decoder | None = None,
) -> Outcome:
    """Records of the letters that pass now; ``in`` counts letters, the others are dead again.

    ``letters`` are DEAD_LETTERS, ``rows`` the RAW rows that they carry, in their order; ``files``
    maps a letter's ``source`` to the ordinal of its input.
    """
    decoder = decoder or shared_decoder(options.images)
    outcomes = []
    for source in dict.fromkeys(letters.column("source").to_pylist()):
        mine = [i for i, s in enumerate(letters.column("source").to_pylist()) if s == source]
        taken = pa.array(mine, pa.int64())
        for raw in _raws(letters.take(taken), rows.take(taken), options.max_record_bytes):
            outcomes.append(finish(raw, file=files[source], source=source, decoder=decoder))
    return _joined(outcomes)


def _raws(letters: pa.Table, rows: pa.Table, max_bytes: int) -> Iterable[Raw]:
    whole = []
    for i, row in enumerate(
        rows.select(["position", "raw", "read_as", "url", "image"]).to_pylist()
    ):
        builder = Builder()
        if row["read_as"] is None:
            whole.append(i)
            continue
        form, chosen = json.loads(row["read_as"])
        if row["raw"] is not None and form == "jsonl":
            line = Line(row["position"], row["raw"], len(row["raw"]))
            add_line(builder, line, Chosen.from_json(chosen), max_bytes)
        elif row["raw"] is not None and form == "wat":
            add_piece(builder, row["raw"], row["position"])
        if not len(builder):
            letter = letters.select(["reason", "error"]).slice(i, 1).to_pylist()[0]
            raw = row["raw"] or b""
            builder.refuse(Bad(row["position"], letter["reason"], letter["error"], raw))
        raw_again = builder.take()
        for bad in raw_again.bad:
            bad.read_as = row["read_as"]
        yield raw_again
    if whole:
        table = rows.take(pa.array(whole, pa.int64())).select(RAW.names)
        wrong = []
        for i, said in enumerate(table.column("wrong").to_pylist()):
            if said is not None:
                reason, _, error = said.partition(": ")
                wrong.append((i, reason, error))
        yield Raw(table, wrong=wrong)


def _joined(outcomes: list[Outcome]) -> Outcome:
    ledger = Ledger()
    stats: dict[str, int] = {}
    for outcome in outcomes:
        ledger.merge(outcome.ledger)
        stats = merge_stats(stats, outcome.stats)
    dead = [outcome.dead for outcome in outcomes if outcome.dead is not None]
    return Outcome(
        pa.concat_tables([outcome.table for outcome in outcomes]),
        ledger,
        pa.concat_tables(dead) if dead else DEAD_LETTERS.empty(),
        stats,
    )
