"""Size and order of rows, vectorised: what decides row groups, shards and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def row_sizes(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return int64[rows]: bytes of each row's values, a function of the values alone.

    Fixed widths, lengths of strings and binaries plus 4, children of lists plus 1 each; a null
    counts 1. About Parquet's plain encoding before compression.
    """
    total = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        start = 0
        for chunk in column.chunks:
            total[start : start + len(chunk)] += _sizes(chunk)
            start += len(chunk)
    return total


def _sizes(array: Any) -> npt.NDArray[np.int64]:
    kind: Any = array.type
    if len(array) == 0:
        return np.zeros(0, np.int64)
    if pa.types.is_struct(kind):
        sizes = np.ones(len(array), np.int64)
        for i in range(kind.num_fields):
            sizes += _sizes(array.field(i))
    elif pa.types.is_list(kind):
        offsets = array.offsets.to_numpy().astype(np.int64)
        child = _sizes(array.values.slice(offsets[0], offsets[-1] - offsets[0])) + 1
        ends = np.concatenate([[0], np.cumsum(child)])[offsets - offsets[0]]
        sizes = np.diff(ends) + 4
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        data = array.buffers()[1]
        offsets = np.frombuffer(data, np.int32, len(array) + 1, array.offset * 4)
        sizes = np.diff(offsets).astype(np.int64) + 4
    elif pa.types.is_boolean(kind):
        sizes = np.ones(len(array), np.int64)
    else:
        sizes = np.full(len(array), kind.byte_width, np.int64)
    if array.null_count:
        # What lies under a null is not a value: it must not decide anything.
        sizes = np.where(array.is_null().to_numpy(zero_copy_only=False), 1, sizes)
    return sizes


def first_disorder(table: pa.Table, keys: tuple[str, ...]) -> int | None:
    """Return the first row that is less than the row before it by ``keys``, None if in order.

    Strings and binaries compare by bytes; columns must not be null.
    """
    if table.num_rows < 2 or not keys:
        return None
    greater: Any = None
    equal: Any = None
    for key in keys:
        column = table.column(key).combine_chunks()
        before, after = column.slice(0, len(column) - 1), column.slice(1)
        above = pc.greater(before, after)
        greater = above if greater is None else pc.or_(greater, pc.and_(equal, above))
        same = pc.equal(before, after)
        equal = same if equal is None else pc.and_(equal, same)
        if not pc.any(equal).as_py():
            break
    row = pc.index(greater, True).as_py()
    return None if row < 0 else row + 1
