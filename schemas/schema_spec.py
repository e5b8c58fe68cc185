"""What a schema is, and how a table is brought to it or refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import InputError

ID = pa.binary(16)
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_TEXT = pa.struct([pa.field("key", pa.string()), pa.field("text", pa.string())])
# Parquet calls the items of a list "element"; so do we, and what is read equals what was written.
TEXTS = pa.list_(pa.field("element", _TEXT))
ENTRIES = pa.list_(pa.field("element", pa.uint32()))

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
        why = "the types are not compatible"
        if _compatible(column.type, field.type):
            try:
                return cast_column(column, field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                why = str(error).splitlines()[0]
        raise InputError(
            f"schema {self.name} v{self.version}: column {field.name!r} is {column.type}, "
            f"expected {field.type} ({why})"
        )

    def _without_nulls(self, table: pa.Table) -> pa.Table:
        for i, field in enumerate(self.arrow):
            if not field.nullable and table.column(i).null_count:
                row = pc.index(table.column(i).is_null(), True).as_py()
                raise InputError(
                    f"schema {self.name} v{self.version}: column {field.name!r} must not be null; "
                    f"row {row} of {table.num_rows} is (and {table.column(i).null_count} in all)"
                )
        return table


def _family(kind: pa.DataType) -> str:
    """Types of one family hold the same values, apart from encoding and width."""
    t = pa.types
    if kind.id in (pa.string_view().id, pa.binary_view().id) or (
        t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind)
    ):
        return "text"
    if t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        return "text"
    return "integer" if t.is_integer(kind) else "float" if t.is_floating(kind) else str(kind)


def _compatible(found: Any, target: Any) -> bool:
    """Whether a safe cast keeps the meaning: 5 to "5" would not, nor would a time to a number."""
    if pa.types.is_dictionary(found):
        return _compatible(found.value_type, target)
    if pa.types.is_null(found):
        return True
    if pa.types.is_struct(target):
        names = [f.name for f in target.fields]
        return pa.types.is_struct(found) and [f.name for f in found.fields] == names
    if pa.types.is_list(target):
        lists = pa.types.is_list(found) or pa.types.is_large_list(found)
        return lists and _compatible(found.value_type, target.value_type)
    pair = (_family(found), _family(target))
    return pair[0] == pair[1] or pair == ("integer", "float")


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


def declare(
    name: str,
    columns: Columns,
    *,
    sort_by: tuple[str, ...],
    unit: str,
    id_column: str | None = None,
    nullable: tuple[str, ...] = (),
    doc: str,
    version: int = 1,
) -> SchemaSpec:
    """Return the spec of a schema whose columns are not null but for ``nullable``."""
    fields = [pa.field(n, t, nullable=n in nullable) for n, t in columns]
    features = {n: _feature(t) for n, t in columns}
    metadata: dict[bytes | str, bytes | str] = {
        "headrace": json.dumps({"schema": name, "version": version}),
        "huggingface": json.dumps({"info": {"features": features}}),
    }
    return SchemaSpec(
        name, version, pa.schema(fields, metadata=metadata), sort_by, unit, id_column, doc
    )
