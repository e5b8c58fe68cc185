"""Arrow schemas of all datasets, one ``SchemaSpec`` each, registered in ``SCHEMAS``.

Schemas evolve by adding nullable columns with a version bump. Ids are ``pa.binary(16)``; images are
``struct<bytes, path>`` with the feature metadata by which `datasets` decodes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import InputError

ID = pa.binary(16)
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
TEXTS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("text", pa.string())]))
ENTRIES = pa.list_(pa.uint32())

Columns = list[tuple[str, pa.DataType]]


@dataclass(frozen=True)
class SchemaSpec:
    """A dataset's schema: name, version, columns, row order, the unit that a row counts as."""

    name: str
    version: int
    arrow: pa.Schema
    sort_by: tuple[str, ...]
    unit: str
    id_column: str | None
    doc: str

    def empty(self) -> pa.Table:
        """Return a table of this schema without rows."""
        return self.arrow.empty_table()

    def validate(self, table: pa.Table) -> pa.Table:
        """Return the table with exactly this schema's columns, order, types and metadata.

        Compatible types are cast (large, view and dictionary encodings, wider integers whose
        values fit); missing nullable columns become null. Raises InputError naming the column,
        what was found and what is expected, for missing, unknown and incompatible columns and
        for nulls in a column without nulls.
        """
        if table.schema.equals(self.arrow, check_metadata=True):
            return self._without_nulls(table)
        found = set(table.column_names)
        unknown = [n for n in table.column_names if n not in self.arrow.names]
        if unknown or len(found) != len(table.column_names):
            raise InputError(
                f"schema {self.name} v{self.version} has no column {unknown or 'twice'}; "
                f"its columns are {', '.join(self.arrow.names)}"
            )
        columns = [self._column(table, field, field.name in found) for field in self.arrow]
        return self._without_nulls(pa.table(columns, schema=self.arrow))

    def _column(self, table: pa.Table, field: pa.Field, found: bool) -> pa.ChunkedArray | pa.Array:
        if not found:
            if not field.nullable:
                raise InputError(
                    f"schema {self.name} v{self.version}: column {field.name!r} "
                    f"({field.type}) is missing; found {', '.join(table.column_names) or 'none'}"
                )
            return pa.nulls(table.num_rows, field.type)
        column = table.column(field.name)
        if column.type == field.type:
            return column
        try:
            return cast_column(column, field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise InputError(
                f"schema {self.name} v{self.version}: column {field.name!r} is {column.type}, "
                f"expected {field.type} ({str(error).splitlines()[0]})"
            ) from None

    def _without_nulls(self, table: pa.Table) -> pa.Table:
        for i, field in enumerate(self.arrow):
            if not field.nullable and table.column(i).null_count:
                row = pc.index(table.column(i).is_null(), True).as_py()
                raise InputError(
                    f"schema {self.name} v{self.version}: column {field.name!r} must not be null; "
                    f"row {row} of {table.num_rows} is (and {table.column(i).null_count} in all)"
                )
        return table


def cast_column(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Cast to the plain type: dictionaries and views decoded, large types narrowed, safely."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type in (pa.string_view(), pa.binary_view()):
        wide = pa.large_string() if column.type == pa.string_view() else pa.large_binary()
        column = column.cast(wide)
    return column if column.type == target else column.cast(target, safe=True)


def _feature(kind: pa.DataType) -> Any:
    """The `datasets` feature (as JSON) of an Arrow type."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {f.name: _feature(f.type) for f in kind.fields}
    if pa.types.is_fixed_size_binary(kind):
        return {"dtype": f"fixed_size_binary[{kind.byte_width}]", "_type": "Value"}
    dtype = "float64" if pa.types.is_float64(kind) else str(kind)  # Arrow prints "double"
    return {"dtype": dtype, "_type": "Value"}


def _spec(
    name: str,
    columns: Columns,
    *,
    sort_by: tuple[str, ...],
    unit: str,
    id_column: str | None = None,
    nullable: tuple[str, ...] = (),
    doc: str,
) -> SchemaSpec:
    fields = [pa.field(n, t, nullable=n in nullable) for n, t in columns]
    features = {n: _feature(t) for n, t in columns}
    metadata: dict[bytes | str, bytes | str] = {
        "headrace": json.dumps({"schema": name, "version": 1}),
        "huggingface": json.dumps({"info": {"features": features}}),
    }
    return SchemaSpec(name, 1, pa.schema(fields, metadata=metadata), sort_by, unit, id_column, doc)


_RECORD: Columns = [
    ("image_id", ID),
    ("url", pa.string()),
    ("texts", TEXTS),
    ("image", IMAGE),
    ("sha256", pa.binary(32)),
    ("phash", pa.uint64()),
    ("score", pa.float64()),
    ("file", pa.int32()),
    ("position", pa.int64()),
]
_POOL: Columns = [
    ("pair_id", ID),
    ("image_id", ID),
    ("url", pa.string()),
    ("key", pa.string()),
    ("text", pa.string()),
    ("source", pa.int32()),
    ("shard", pa.int32()),
    ("row", pa.int64()),
    ("score", pa.float64()),
]
_MATCHES: Columns = [
    *_POOL,
    ("language", pa.string()),
    ("metadata", pa.string()),
    ("entries", ENTRIES),
]
_MATCHED: Columns = [*_MATCHES, ("image_texts", pa.int32()), ("keep_probability", pa.float64())]
_ENTRY: Columns = [("metadata", pa.string()), ("entry", pa.uint32())]

RECORDS = _spec(
    "records",
    _RECORD,
    sort_by=("file", "position"),
    unit="record",
    id_column="image_id",
    nullable=("url", "image", "sha256", "phash", "score"),
    doc="What ingest read: an image (or its URL) with its texts. file is the ordinal in the "
    "manifest's inputs, position the record's number in that file.",
)
POOL = _spec(
    "pool",
    _POOL,
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score"),
    doc="One text of one image. (source, shard, row) is where the record lies: ordinal of the "
    "input dataset, ordinal in its shard list, row in that shard.",
)
MATCHES = _spec(
    "matches",
    _MATCHES,
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score"),
    doc="A text with at least one metadata entry: identified language, metadata key, ascending "
    "unique entry numbers.",
)
MATCHED = _spec(
    "matched",
    _MATCHED,
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score"),
    doc="Every pair with a match: the number of matched texts of its image and the probability "
    "with which balancing keeps it. A trainer that draws anew each epoch reads this.",
)
CURATED = _spec(
    "curated",
    [*_MATCHED, ("image", IMAGE)],
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score", "image"),
    doc="The draw of epoch 0; sorted by (source, shard, row, pair_id) where images are attached.",
)
METADATA = _spec(
    "metadata",
    [*_ENTRY, ("text", pa.string()), ("source", pa.string())],
    sort_by=("metadata", "entry"),
    unit="entry",
    doc="Entries of each metadata key; source is w (WordNet), u, b (uni-, bigrams), t (titles).",
)
AUTOMATA = _spec(
    "automata",
    [
        ("metadata", pa.string()),
        ("entries", pa.uint32()),
        ("blob", pa.string()),
        ("match", pa.string()),
    ],
    sort_by=("metadata",),
    unit="entry",
    doc="The compiled automaton of each metadata key: entry count, digest of its blob, match mode.",
)
COUNTS = _spec(
    "counts",
    [*_ENTRY, ("count", pa.uint64())],
    sort_by=("metadata", "entry"),
    unit="entry",
    doc="Matched texts of each entry; only counts above 0.",
)
SAMPLE = _spec(
    "sample",
    [
        ("metadata", pa.string()),
        ("rank", pa.uint64()),
        ("pair_id", ID),
        ("entries", ENTRIES),
        ("image_texts", pa.int32()),
    ],
    sort_by=("metadata", "rank", "pair_id"),
    unit="text",
    id_column="pair_id",
    doc="Bottom-k sample of matches by rank, a hash of the pair id.",
)
BALANCE = _spec(
    "balance",
    [*_ENTRY, ("text", pa.string()), ("count", pa.uint64()), ("probability", pa.float64())],
    sort_by=("metadata", "entry"),
    unit="entry",
    doc="Probability with which each entry keeps its texts.",
)
VALID = _spec(
    "valid",
    [("image_id", ID)],
    sort_by=("image_id",),
    unit="image",
    id_column="image_id",
    doc="Ids of images that were fetched and are wanted.",
)
NGRAMS = _spec(
    "ngrams",
    [
        ("wiki", pa.string()),
        ("kind", pa.string()),
        ("text", pa.string()),
        ("count", pa.uint64()),
        ("score", pa.float64()),
    ],
    sort_by=("wiki", "kind", "text"),
    unit="entry",
    nullable=("score",),
    doc="Unigrams (u), bigrams (b) and titles (t) of a wiki with their counts.",
)
DEAD_LETTERS = _spec(
    "dead_letters",
    [
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("error", pa.string()),
        ("source", pa.string()),
        ("position", pa.int64()),
        ("row", pa.binary()),
    ],
    sort_by=(),
    unit="record",
    doc="Rows a stage could not process: row is an Arrow IPC stream of a one-row table of the "
    "stage's input schema, enough to replay it.",
)

SCHEMAS: dict[str, SchemaSpec] = {
    spec.name: spec
    for spec in (
        RECORDS,
        POOL,
        MATCHES,
        MATCHED,
        CURATED,
        METADATA,
        AUTOMATA,
        COUNTS,
        SAMPLE,
        BALANCE,
        VALID,
        NGRAMS,
        DEAD_LETTERS,
    )
}
