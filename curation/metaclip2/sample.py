"""A bottom-k sample of matched texts: the k of each language with the smallest hash.

The hash is a function of the pair id, so the sample does not depend on order or workers, samples
of parts merge into the sample of the whole, and it is a simple random sample without replacement.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.id_sets import order_by
from schemas.errors import UsageError
from schemas.ids import uniform
from schemas.table_schemas import SAMPLE

MAX_K = 200_000
"""Most texts that a sample holds of one language."""

SALT_SAMPLE = 3
_RESOLUTION = 2.0**53


def sample(matches: pa.Table, image_texts: np.ndarray | None = None, *, k: int = MAX_K) -> pa.Table:
    """Return the SAMPLE of a table of MATCHES (with ``image_texts`` int32[n]) or of MATCHED."""
    if image_texts is None:
        image_texts = matches["image_texts"].to_numpy()
    ranks = (uniform(0, 0, matches["pair_id"], SALT_SAMPLE) * _RESOLUTION).astype(np.uint64)
    columns = [
        matches["metadata"],
        pa.array(ranks),
        matches["pair_id"],
        matches["entries"],
        pa.array(image_texts, pa.int32()),
    ]
    return merge([pa.table(columns, schema=SAMPLE.arrow)], k=k)


def merge(samples: Iterable[pa.Table], *, k: int = MAX_K) -> pa.Table:
    """Return the sample of the union of what the samples were taken from."""
    if not 1 <= k <= MAX_K:
        raise UsageError(f"k={k}: a sample holds 1 to {MAX_K} texts of a language")
    tables = list(samples)
    if not tables:
        return SAMPLE.empty()
    table = pa.concat_tables(tables)
    keys = table["metadata"].combine_chunks().dictionary_encode()
    codes = pc.rank(keys.dictionary).to_numpy()[keys.indices.to_numpy()]
    order = order_by(codes, table["rank"].to_numpy(), table["pair_id"])
    ordered = codes[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return table.take(pa.array(order[place < k])).combine_chunks()
