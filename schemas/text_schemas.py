"""Arrow schemas of text data: documents, what deduplication found, tokens; registered in ``SCHEMAS``."""

from __future__ import annotations

import pyarrow as pa

from schemas.schema_spec import ID, Columns, declare

_DOCUMENT: Columns = [
    ("doc_id", ID),
    ("split", pa.string()),
    ("source", pa.string()),
    ("language", pa.string()),
    ("text", pa.string()),
    ("file", pa.int32()),
    ("position", pa.int64()),
]

DOCUMENTS = declare(
    "documents",
    _DOCUMENT,
    sort_by=("file", "position"),
    unit="document",
    id_column="doc_id",
    nullable=("language",),
    doc="One text that the filters keep. doc_id is a hash of its content, split a function of "
    "doc_id; file is the ordinal in the manifest's inputs, position the document's number in it.",
)
DUPLICATES = declare(
    "duplicates",
    [
        ("doc_id", ID),
        ("file", pa.int32()),
        ("position", pa.int64()),
        ("kept", ID),
        ("how", pa.string()),
    ],
    sort_by=("file", "position"),
    unit="entry",
    doc="A document (its place in the documents' inputs) that is dropped for another one, kept: "
    "exact (equal content) or near (MinHash).",
)
TOKENS = declare(
    "tokens",
    [
        ("doc_id", ID),
        ("split", pa.string()),
        ("source", pa.string()),
        ("tokens", pa.binary()),
        ("length", pa.int32()),
    ],
    sort_by=(),
    unit="document",
    id_column="doc_id",
    doc="One tokenised document, in the order of the documents: length token ids as little-endian "
    "unsigned integers of the width in the manifest (statistics tokens.bytes: 2 or 4).",
)

TEXT_SCHEMAS = (DOCUMENTS, DUPLICATES, TOKENS)
