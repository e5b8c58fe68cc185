"""Sets and runs of 128-bit ids against Python's own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.id_sets import IdSet, order_by, run_starts
from schemas.ids import ID_TYPE

# Few values in each half, so that ids share their first half, their second, or all but one byte.
HALVES = st.sampled_from([b"\0" * 8, b"\0" * 7 + b"\1", b"\1" + b"\0" * 7, b"\xff" * 8])
IDS = st.lists(st.tuples(HALVES, HALVES).map(b"".join), max_size=20)


def column(ids: list[bytes]) -> pa.Array:
    return pa.array(ids, ID_TYPE)


@settings(deadline=None)
@given(IDS, IDS)
def test_membership_equals_a_python_set(members: list[bytes], asked: list[bytes]) -> None:
    ids = IdSet(column(members))
    assert ids.contains(column(asked)).tolist() == [i in set(members) for i in asked]
    assert ids.ids().to_pylist() == sorted(set(members))
    assert len(ids) == len(set(members))


@settings(deadline=None)
@given(st.lists(IDS, max_size=3))
def test_the_union_of_columns(parts: list[list[bytes]]) -> None:
    columns = [pa.chunked_array([column(p[:2]), column(p[2:])]) for p in parts]
    assert IdSet.of(columns).ids().to_pylist() == sorted({i for p in parts for i in p})


@settings(deadline=None)
@given(IDS, st.lists(st.integers(0, 2), min_size=20, max_size=20))
def test_order_is_that_of_the_bytes(ids: list[bytes], numbers: list[int]) -> None:
    numbers = numbers[: len(ids)]
    expected = sorted(range(len(ids)), key=lambda i: (numbers[i], ids[i]))
    assert order_by(np.array(numbers, np.int64), column(ids)).tolist() == expected
    expected = sorted(range(len(ids)), key=lambda i: (ids[i], numbers[i]))
    assert order_by(column(ids), np.array(numbers, np.int64)).tolist() == expected


@settings(deadline=None)
@given(IDS)
def test_runs_begin_where_the_id_changes(ids: list[bytes]) -> None:
    expected = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
    assert run_starts(column(ids)).tolist() == expected
    padded = column([b"x" * 16, *ids]).slice(1)
    assert run_starts(padded).tolist() == expected
