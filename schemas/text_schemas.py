"""Arrow schemas of text data: documents, duplicates, tokens, logits; registered in ``SCHEMAS``."""

from __future__ import annotations

import pyarrow as pa

from schemas.schema_spec import ID, Columns, declare

_PLACE: Columns = [("doc_id", ID), ("file", pa.int32()), ("position", pa.int64())]

DOCUMENTS = declare(
    "documents",
    [
        ("doc_id", ID),
        ("split", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("text", pa.string()),
        ("file", pa.int32()),
        ("position", pa.int64()),
    ],
    sort_by=("file", "position"),
    unit="document",
    id_column="doc_id",
    nullable=("language",),
    doc="One text that the filters keep. doc_id is a hash of its content, split (train or "
    "validation) a function of doc_id; file is the ordinal in the manifest's inputs, position the "
    "row of a Parquet file, or else the byte of the decompressed file at which the record begins.",
)
CONTAMINATION = declare(
    "contamination",
    [
        *_PLACE,
        ("evaluation", pa.string()),
        ("ngram", pa.string()),
    ],
    sort_by=("file", "position"),
    unit="entry",
    doc="A document that shares text with an evaluation set: the set's name and the first n-gram "
    "found in both.",
)
CANDIDATES = declare(
    "candidates",
    [
        *_PLACE,
        ("other", ID),
        ("other_file", pa.int32()),
        ("other_position", pa.int64()),
        ("how", pa.string()),
        ("bucket", pa.string()),
    ],
    sort_by=(),
    unit="entry",
    nullable=("bucket",),
    doc="A document and the first of those that share a key with it: their normalised content "
    "(how: exact) or a band of their MinHash signatures (near). bucket names the part of the keys.",
)
DUPLICATES = declare(
    "duplicates",
    [*_PLACE, ("kept", ID), ("how", pa.string())],
    sort_by=("file", "position"),
    unit="entry",
    doc="A document (its place in the documents' inputs) that is dropped for another one, kept: "
    "exact (equal normalised content) or near (MinHash).",
)
TOKENIZER = declare(
    "tokenizer",
    [("id", pa.int32()), ("token", pa.string())],
    sort_by=("id",),
    unit="entry",
    doc="The vocabulary of a trained tokenizer; the tokenizer itself is the blob tokenizer.json.",
)
TOKENS = declare(
    "tokens",
    [
        ("doc_id", ID),
        ("split", pa.string()),
        ("source", pa.string()),
        ("tokens", pa.binary()),
        ("length", pa.int32()),
        ("file", pa.int32()),
        ("position", pa.int64()),
    ],
    sort_by=(),
    unit="document",
    id_column="doc_id",
    nullable=("file", "position"),
    doc="One tokenised document: length token ids as little-endian unsigned integers of the width "
    "in the manifest (config.tokens.bytes: 2 or 4). All train rows come first, in shards of their "
    "own, then the validation rows; both in the order of the documents, whose file and position "
    "they keep.",
)

LOGITS = declare(
    "logits",
    [
        ("doc_id", ID),
        ("start", pa.int32()),
        ("length", pa.int32()),
        ("ids", pa.binary()),
        ("log_probs", pa.binary()),
        ("tail", pa.binary()),
    ],
    sort_by=(),
    unit="entry",
    doc="What a teacher says after each of the length tokens from start on of a document of the parent: "
    "the k = config.top_k likeliest next tokens, ids (length x k little-endian unsigned integers of "
    "config.bytes: 2 or 4), the likeliest first; their natural log_probs at config.temperature "
    "(length x k float32) and the log of what the others have together, tail (length float32; minus "
    "infinity if there are none). The teacher read the tokens from start on. Rows follow the parent's of "
    "config.split, in order; a document of more than config.context tokens has several.",
)

TEXT_SCHEMAS = (
    DOCUMENTS,
    CONTAMINATION,
    CANDIDATES,
    DUPLICATES,
    TOKENIZER,
    TOKENS,
    LOGITS,
)
