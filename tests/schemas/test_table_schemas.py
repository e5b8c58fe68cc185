"""Schemas: what is accepted, cast and refused; what `datasets` sees."""

from __future__ import annotations

import datasets
import pyarrow as pa
import pytest

from schemas.errors import InputError
from schemas.ledger import UNITS
from schemas.table_schemas import COUNTS, IMAGE, POOL, SCHEMAS
from tests.schemas import samples


@pytest.mark.parametrize("name", SCHEMAS)
def test_specs_are_coherent(name: str) -> None:
    spec = SCHEMAS[name]
    assert spec.name == name and spec.version >= 1 and spec.unit in UNITS and spec.doc
    for column in spec.sort_by:
        assert not spec.arrow.field(column).nullable, "rows are ordered by columns without nulls"
    if spec.id_column:
        assert spec.arrow.field(spec.id_column).type == pa.binary(16)


@pytest.mark.parametrize("name", SCHEMAS)
def test_feature_metadata_is_what_datasets_would_infer(name: str) -> None:
    """Equal to datasets' own inference, but for images, which are Image features."""
    arrow = SCHEMAS[name].arrow
    declared = datasets.Features.from_arrow_schema(arrow)
    inferred = datasets.Features.from_arrow_schema(arrow.remove_metadata())
    for column, feature in declared.items():
        if arrow.field(column).type == IMAGE:
            assert isinstance(feature, datasets.Image)
        else:
            assert feature == inferred[column]
    assert declared.arrow_schema.types == arrow.types


def test_exact_tables_pass_unchanged() -> None:
    table = samples.pool(5)
    assert POOL.validate(table).equals(table, check_metadata=True)


def test_compatible_types_are_cast_and_columns_ordered() -> None:
    plain = samples.counts(4)
    mixed = pa.table(
        {
            "count": pa.array([1, 2, 3, 4], pa.int16()),
            "metadata": pa.array(["en"] * 4).dictionary_encode(),
            "entry": pa.array([0, 1, 2, 3], pa.int64()),
        }
    )
    assert COUNTS.validate(mixed).equals(plain, check_metadata=True)
    for kind in (pa.large_string(), pa.string_view()):
        odd = plain.set_column(0, "metadata", pa.array(["en"] * 4).cast(kind))
        assert COUNTS.validate(odd).equals(plain, check_metadata=True)


def test_missing_nullable_columns_become_null() -> None:
    table = samples.pool(5)
    found = POOL.validate(table.drop_columns(["score", "url"]))
    assert found.column("score").null_count == found.column("url").null_count == 5
    assert found.schema.equals(POOL.arrow, check_metadata=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["text"]), "column 'text' (string) is missing"),
        (lambda t: t.append_column("extra", t["row"]), "has no column ['extra']"),
        (lambda t: t.append_column("row", t["row"]), "no column twice"),
        (
            lambda t: t.set_column(4, "text", pa.array(range(5))),
            "column 'text' is int64, expected string",
        ),
        (
            lambda t: t.set_column(5, "source", pa.array([2**40] * 5)),
            "column 'source' is int64, expected int32",
        ),
        (
            lambda t: t.set_column(4, "text", pa.array([b"\xff"] * 5)),
            "column 'text' is binary, expected string",
        ),
        (
            lambda t: t.set_column(0, "pair_id", pa.array([b"short"] * 5)),
            "column 'pair_id' is binary",
        ),
        (
            lambda t: t.set_column(4, "text", pa.array(["a", "b", None, "c", None])),
            "column 'text' must not be null; row 2 of 5 is (and 2 in all)",
        ),
    ],
)
def test_wrong_tables_are_refused_by_name(change: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        POOL.validate(change(samples.pool(5)))  # type: ignore[operator]
    assert message in str(caught.value)
    assert "pool v1" in str(caught.value)
    assert "\n" not in str(caught.value)
