"""Deduplication of (image, text) pairs: the smallest (source, shard, row) of each pair stays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.id_sets import order_by, run_starts
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome


def deduplicate(table: pa.Table) -> Outcome:
    """Return the table (POOL rows in any order) by (image_id, pair_id), each pair once.

    All rows of an image id must be in the table (a bucket by image id). Two texts of one record
    that are equal are one pair: the smaller key ("alt" before "title") stays.
    """
    table = table.combine_chunks()
    keys = table["key"].combine_chunks().dictionary_encode()
    key_rank = pc.rank(keys.dictionary).to_numpy()[keys.indices.to_numpy()]
    places = (table[name].to_numpy() for name in ("source", "shard", "row"))
    order = order_by(table["image_id"], table["pair_id"], *places, key_rank)
    table = table.take(pa.array(order))
    first = run_starts(table["pair_id"])
    stay = np.zeros(table.num_rows, bool)
    stay[first] = True
    ids = table["pair_id"].combine_chunks()
    ledger = Ledger()
    ledger.add("text", "in", "", table.num_rows, id_sum(ids))
    if not stay.all():
        again = ids.filter(pa.array(~stay))
        ledger.add("text", "merged", "duplicate_pair", len(again), id_sum(again))
    out = table.filter(pa.array(stay))
    ledger.add("text", "out", "", out.num_rows, id_sum(out["pair_id"]))
    images = len(run_starts(out["image_id"]))
    return Outcome(out, ledger, stats={"images": images})
