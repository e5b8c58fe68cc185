"""Text columns of any layout as one: a list of (key, text) a row, still binary.

A column may hold strings, lists of strings, maps or structs of key to text, or JSON in strings.
All of it is done on whole columns; only JSON is parsed row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

Column = Any
"""A ``pa.Array`` of some type: which methods it has depends on the type."""

RAW_TEXTS: Any = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("text", pa.binary())]))


class NotText(Exception):
    """A column's type cannot hold texts; the message says what it is."""


def as_binary(column: Column) -> Column:
    """A string-like column as ``binary`` without looking at its bytes. Raises NotText."""
    kind = column.type
    if pt.is_dictionary(kind):
        return as_binary(column.dictionary_decode())
    if pt.is_binary(kind):
        return column
    if pt.is_string(kind):
        return column.view(pa.binary())
    if pt.is_large_string(kind):
        return column.view(pa.large_binary()).cast(pa.binary())
    if pt.is_large_binary(kind) or pt.is_binary_view(kind) or pt.is_fixed_size_binary(kind):
        return column.cast(pa.binary())
    if pt.is_string_view(kind):
        return column.view(pa.binary_view()).cast(pa.binary())
    if pt.is_null(kind):
        return pa.nulls(len(column), pa.binary())
    raise NotText(str(kind))


def invalid_utf8(column: Column) -> np.ndarray:
    """bool[n]: which values of a binary column are not UTF-8; nulls are fine.

    Arrow checks a whole slice at once, so slices that fail are halved: no cost where all is well.
    """
    bad = np.zeros(len(column), dtype=bool)
    todo = [(0, len(column))] if len(column) else []
    while todo:
        start, stop = todo.pop()
        try:
            column.slice(start, stop - start).cast(pa.string())
        except pa.ArrowInvalid:
            if stop - start == 1:
                bad[start] = True
            else:
                middle = (start + stop) // 2
                todo += [(start, middle), (middle, stop)]
    return bad


def _lists(column: Column) -> tuple[np.ndarray, Column]:
    """(values a row, all values) of a list-like column; null rows have no values."""
    lengths: Column = pc.list_value_length(column)
    return _numbers(lengths), column.flatten()


def _numbers(column: Column) -> np.ndarray:
    """int64[n]; null counts as 0."""
    return column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _map_entries(column: Column) -> tuple[np.ndarray, Column, Column]:
    # A map is a list of structs; the cast keeps offsets, nulls and slices right.
    item = column.type
    entry = pa.struct([pa.field("key", item.key_type), pa.field("value", item.item_type)])
    counts, entries = _lists(column.cast(pa.list_(entry)))
    return counts, entries.field("key"), entries.field("value")


def _parse(value: bytes, name: str) -> list[tuple[str, bytes | None]]:
    """Texts of one JSON value: an object of key to text(s), an array, or a string."""
    return flatten(orjson.loads(value), name)


_DEPTH = 16


def flatten(value: object, name: str, depth: int = 0) -> list[tuple[str, bytes | None]]:
    """(key, text) pairs of a parsed JSON value. Raises ValueError naming what is no text."""
    if value is None:
        return []
    if depth > _DEPTH:
        raise ValueError(f"texts in {name!r} are nested more than {_DEPTH} deep")
    if isinstance(value, str):
        return [(name, value.encode("utf-8", "surrogatepass"))]
    if isinstance(value, bytes):
        return [(name, value)]
    if isinstance(value, list):
        return [pair for item in value for pair in flatten(item, name, depth + 1)]
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in flatten(item, _key(key), depth + 1)]
    raise ValueError(f"a text is expected in {name!r}, found {type(value).__name__}")


def _key(key: str) -> str:
    return key.encode("utf-8", "replace").decode()


def column_texts(
    column: Column, name: str, text_format: str
) -> tuple[np.ndarray, Column, Column, list[tuple[int, str]]]:
    """One column as (texts a row, keys, texts as binary, rows that are wrong with the error).

    Raises NotText for a type that holds no text.
    """
    kind = column.type
    if pt.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pt.is_map(kind):
        counts, keys, values = _map_entries(column)
        return counts, as_binary(keys).cast(pa.string()), as_binary(values), []
    if pt.is_struct(kind):
        # flatten, unlike field, keeps the nulls of the struct itself.
        names = [column.type.field(i).name for i in range(kind.num_fields)]
        parts = [
            column_texts(child, child_name, "auto")[:3]
            for child, child_name in zip(column.flatten(), names, strict=True)
        ]
        counts, keys, values = interleave(parts, len(column))
        return counts, keys, values, []
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        counts, values = _lists(column)
        return counts, pa.repeat(pa.scalar(name), len(values)), as_binary(values), []
    binary = as_binary(column)
    if text_format in ("json", "list"):
        return _json_texts(binary, name)
    counts = np.ones(len(binary), np.int64)
    return counts, pa.repeat(pa.scalar(name), len(binary)), binary, []


def _json_texts(
    column: Column, name: str
) -> tuple[np.ndarray, Column, Column, list[tuple[int, str]]]:
    counts = np.zeros(len(column), np.int64)
    keys: list[str] = []
    texts: list[bytes | None] = []
    wrong = []
    for row, value in enumerate(column.to_pylist()):
        if not value:
            continue
        try:
            pairs = _parse(value, name)
        except ValueError as error:
            wrong.append((row, f"column {name!r} is not the JSON of key to text: {error}"))
            continue
        counts[row] = len(pairs)
        keys += [key for key, _ in pairs]
        texts += [text for _, text in pairs]
    return counts, pa.array(keys, pa.string()), pa.array(texts, pa.binary()), wrong


def interleave(
    parts: Sequence[tuple[np.ndarray, Column, Column]], rows: int
) -> tuple[np.ndarray, Column, Column]:
    """Several (counts, keys, texts) as one: row by row, in the order of the parts."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.zeros(rows, np.int64), pa.array([], pa.string()), pa.array([], pa.binary())
    owners = np.concatenate([np.repeat(np.arange(rows), counts) for counts, _, _ in parts])
    order = pa.array(np.argsort(owners, kind="stable"))
    keys = pa.concat_arrays([keys for _, keys, _ in parts]).take(order)
    texts = pa.concat_arrays([texts for _, _, texts in parts]).take(order)
    return np.sum([counts for counts, _, _ in parts], axis=0), keys, texts


def as_lists(counts: np.ndarray, keys: Column, texts: Column) -> Column:
    """The RAW_TEXTS column; null and empty texts are left out, so a row may have none."""
    lengths: Column = pc.binary_length(texts)
    full = _numbers(lengths) > 0
    if not full.all():
        owners = np.repeat(np.arange(len(counts)), counts)
        counts = np.bincount(owners[full], minlength=len(counts))
        keys, texts = keys.filter(pa.array(full)), texts.filter(pa.array(full))
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    entries: Column = pa.StructArray.from_arrays([keys, texts], fields=list(RAW_TEXTS.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), entries).cast(RAW_TEXTS)
