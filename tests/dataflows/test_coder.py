"""Arrow tables between workers: exactly the rows, nothing of their parents."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.transforms.coder import ArrowTableCoder, decode_table, encode_table

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(max_size=20),
            "ids": st.none() | st.lists(st.integers(0, 2**32 - 1), max_size=4),
            "image": st.none()
            | st.fixed_dictionaries({"bytes": st.none() | st.binary(max_size=9)}),
        }
    ),
    max_size=30,
)
SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "ids": pa.list_(pa.uint32()),
        "image": pa.struct({"bytes": pa.binary()}),
    }
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, start=st.integers(0, 30), length=st.integers(0, 30), chunks=st.integers(1, 4))
def test_any_slice_comes_back_equal(rows: list, start: int, length: int, chunks: int) -> None:
    table = pa.concat_tables([pa.Table.from_pylist(rows, schema=SCHEMA)] * chunks)
    part = table.slice(start, length)
    back = decode_table(encode_table(part))
    assert back.to_pylist() == part.to_pylist()
    assert all(column.num_chunks <= 1 for column in back.columns)


def test_a_slice_costs_its_rows_only() -> None:
    rows = 100_000
    table = pa.table(
        {
            "text": ["x" * 100] * rows,
            "ids": [[1, 2, 3]] * rows,
            "image": [{"bytes": b"q" * 50, "path": None}] * rows,
            "label": pa.array([f"label {n}" for n in range(rows)]).dictionary_encode(),
        }
    )
    assert table.nbytes > 18_000_000
    assert len(encode_table(table.slice(500, 10))) < 6_000


def test_dictionaries_inside_structs_are_decoded_also_in_slices() -> None:
    words = pa.array(["a", "b", "c", "a"] * 100).dictionary_encode()
    table = pa.table(
        {"s": pa.StructArray.from_arrays([words, pa.array(np.arange(400))], ["w", "n"])}
    )
    part = table.slice(7, 5)
    back = decode_table(encode_table(part))
    assert back.schema.field("s").type.field("w").type == pa.string()
    assert back.to_pylist() == part.to_pylist()


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view(), pa.list_view(pa.int32())])
def test_view_types_are_refused_by_name(kind: pa.DataType) -> None:
    table = pa.table({"column_x": pa.nulls(3, kind)})
    with pytest.raises(TypeError, match=r"column_x.*cast it"):
        encode_table(table)


def test_coders_compare_equal_and_are_deterministic() -> None:
    assert ArrowTableCoder() == ArrowTableCoder()
    assert hash(ArrowTableCoder()) == hash(ArrowTableCoder())
    table = pa.table({"a": [1, 2, 3]})
    assert ArrowTableCoder().encode(table) == ArrowTableCoder().encode(
        pa.concat_tables([table[:1], table[1:]])
    )
