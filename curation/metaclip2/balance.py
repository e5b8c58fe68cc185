"""The balance dataset: each counted entry with its text, its count and its probability."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from curation.metaclip2.counts import LanguageCounts
from curation.metaclip2.thresholds import Thresholds, entry_probability
from schemas.errors import IntegrityError
from schemas.table_schemas import BALANCE


def metadata_sizes(metadata: Iterable[pa.Table]) -> dict[str, int]:
    """Return the number of entries of each metadata key (tables of METADATA, cut anyhow)."""
    sizes: dict[str, int] = {}
    for table in metadata:
        for row in table["metadata"].value_counts().to_pylist():
            sizes[row["values"]] = sizes.get(row["values"], 0) + row["counts"]
    return sizes


def balance_tables(
    counts: Mapping[str, LanguageCounts], thresholds: Thresholds, metadata: Iterable[pa.Table]
) -> Iterator[pa.Table]:
    """Yield BALANCE rows, one for each entry with a match, in the order of the METADATA tables.

    ``metadata`` is streamed, in order (metadata, entry); only its tables and the counts are held.
    Raises IntegrityError at the end if a counted entry was not among them.
    """
    left = {key: len(counts[key].entries) for key in thresholds.languages}
    for table in metadata:
        encoded = table["metadata"].combine_chunks().dictionary_encode()
        codes, entries = encoded.indices.to_numpy(), table["entry"].to_numpy()
        count = np.zeros(table.num_rows, np.uint64)
        probability = np.ones(table.num_rows)
        for code, key in enumerate(encoded.dictionary.to_pylist()):
            if key not in left:
                continue
            known = counts[key]
            rows = np.flatnonzero(codes == code)
            at = np.searchsorted(known.entries, entries[rows])
            at[at == len(known.entries)] = 0
            hit = known.entries[at] == entries[rows]
            rows, at = rows[hit], at[hit]
            count[rows] = known.counts[at]
            probability[rows] = entry_probability(known.counts[at], thresholds.languages[key].t)
            left[key] -= len(rows)
        rows = np.flatnonzero(count)
        columns = [
            table["metadata"].take(pa.array(rows)),
            pa.array(entries[rows]),
            table["text"].take(pa.array(rows)),
            pa.array(count[rows]),
            pa.array(probability[rows]),
        ]
        yield pa.table(columns, schema=BALANCE.arrow)
    missing = {key: n for key, n in left.items() if n}
    if missing:
        key, n = next(iter(missing.items()))
        raise IntegrityError(
            f"{n} counted entries of {key!r} are not in the metadata: counts and metadata do not "
            "belong together"
        )
