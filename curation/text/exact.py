"""Exact duplicates: documents whose normalised content is equal.

Normalised: Unicode NFC, and every run of white space one space, none at the ends. Case, digits and
punctuation stay: they can be all that tells two texts apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.id_sets import order_by, run_starts
from curation.text.documents import VALIDATION
from curation.text.near import NearOptions, pairs
from schemas.ids import ID_TYPE, id128

NORMALISED = "NFC, white space as one space"


def normalised(text: str) -> str:
    """The text of which equal documents agree."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def contents(documents: pa.Table) -> pa.Table:
    """content (a hash of the normalised text), doc_id, file, position, validation of documents.

    Rows of equal ``content`` must meet in one call of :func:`equal_pairs`: shuffle by it.
    """
    texts: Sequence[str] = documents["text"].to_pylist()
    keys = [id128(b"content", normalised(text).encode()) for text in texts]
    out = documents.select(["doc_id", "file", "position"])
    out = out.add_column(0, "content", pa.array(keys, ID_TYPE))
    return out.append_column("validation", pc.equal(documents["split"], VALIDATION))


def equal_pairs(table: pa.Table) -> pa.Table:
    """CANDIDATES rows of all rows of some contents: a content's other documents and its first."""
    table = table.take(pa.array(order_by(table["content"])))
    begins = np.zeros(table.num_rows, np.int64)
    begins[run_starts(table["content"])] = 1
    numbers = pa.array(np.cumsum(begins).astype(np.uint64))
    return pairs(table.append_column("bucket", numbers), NearOptions(), "exact")
