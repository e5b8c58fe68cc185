"""Keep probabilities against the plain product, their file, and the balance table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.metaclip2.balance import balance_tables, metadata_sizes
from curation.metaclip2.counts import by_language, count
from curation.metaclip2.probabilities import Probabilities, keep_probability
from curation.metaclip2.thresholds import find_thresholds
from schemas.errors import IntegrityError
from schemas.table_schemas import BALANCE, METADATA
from tests.curation.metaclip2 import plain

SIZES = {"en": 400, "de": 90, "th": 20}


def some(values: dict[str, list[float]]) -> Probabilities:
    return Probabilities(
        {k: (np.arange(len(v), dtype=np.uint32), np.array(v)) for k, v in values.items()}
    )


def keep(rows: list[tuple[str, list[int]]], probabilities: Probabilities) -> list[float]:
    keys = pa.array([key for key, _ in rows], pa.string())
    entries = pa.array([entries for _, entries in rows], pa.list_(pa.uint32()))
    return keep_probability(keys, entries, probabilities).tolist()


PROBS = st.lists(st.floats(1e-9, 1) | st.just(1.0), min_size=5, max_size=5)
ENTRIES = st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True).map(sorted)


@settings(deadline=None)
@given(PROBS, PROBS, st.lists(st.tuples(st.sampled_from(["en", "de"]), ENTRIES), max_size=20))
def test_equals_the_plain_product_bit_for_bit(english, german, rows) -> None:
    values = {"en": english, "de": german}
    expected = [plain.keep([values[key][e] for e in entries]) for key, entries in rows]
    assert keep(rows, some(values)) == expected


@pytest.mark.spec("metaclip2", 16)
@settings(deadline=None)
@given(st.lists(st.floats(1e-12, 1), min_size=0, max_size=30))
def test_one_tail_entry_keeps_for_sure(others: list[float]) -> None:
    for place in (0, len(others)):
        values = [*others[:place], 1.0, *others[place:]]
        assert keep([("en", list(range(len(values))))], some({"en": values})) == [1.0]


def test_long_lists_and_slices() -> None:
    values = [0.001 + i / 1e7 for i in range(5000)]
    rows = [("en", list(range(5000))), ("en", [3]), ("en", [0, 4999])]
    expected = [plain.keep([values[e] for e in entries]) for _, entries in rows]
    assert keep(rows, some({"en": values})) == expected
    entries = pa.array([e for _, e in rows], pa.list_(pa.uint32())).slice(1)
    found = keep_probability(pa.array(["en"] * 2), entries, some({"en": values}))
    assert found.tolist() == expected[1:]


def test_what_was_never_counted_is_refused() -> None:
    for rows in ([("en", [0, 7])], [("fr", [0])]):
        with pytest.raises(IntegrityError, match="never counted"):
            keep(rows, some({"en": [0.5, 0.5]}))
    with pytest.raises(IntegrityError, match="row 1 has no matched entry"):
        keep([("en", [0]), ("en", [])], some({"en": [0.5]}))
    assert keep([], some({})) == []


def test_the_file_is_mapped_and_the_same_for_the_same_probabilities(tmp_path: Path) -> None:
    matches = plain.random_matches(1, 300, SIZES)
    counts = by_language(count(matches))
    first = Probabilities.of_counts(counts, find_thresholds(counts, SIZES, p=0.1))
    first.write(tmp_path / "a")
    opened = Probabilities.open(tmp_path / "a")
    opened.write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(opened.languages()) == ["de", "en", "th"]
    expected = keep_probability(matches["metadata"], matches["entries"], first)
    found = keep_probability(matches["metadata"], matches["entries"], opened)
    assert np.array_equal(expected, found)


def metadata_table(sizes: dict[str, int]) -> pa.Table:
    rows = [
        {"metadata": key, "entry": i, "text": f"{key} {i}", "source": "w"}
        for key in sorted(sizes)
        for i in range(sizes[key])
    ]
    return pa.Table.from_pylist(rows, schema=METADATA.arrow)


@pytest.mark.parametrize("step", [1000, 64, 7])
def test_the_balance_table_lists_every_counted_entry(step: int) -> None:
    matches = plain.random_matches(2, 300, SIZES)
    counts = by_language(count(matches))
    metadata = metadata_table({**SIZES, "fr": 5})
    tables = [metadata.slice(i, step) for i in range(0, metadata.num_rows, step)]
    sizes = metadata_sizes(tables)
    assert sizes == {**SIZES, "fr": 5}
    found = find_thresholds(counts, sizes, p=0.1)
    balance = pa.concat_tables(balance_tables(counts, found, tables)).combine_chunks()
    assert balance.schema.equals(BALANCE.arrow, check_metadata=True)
    expected = [
        {
            "metadata": key,
            "entry": entry,
            "text": f"{key} {entry}",
            "count": n,
            "probability": plain.probability(n, found.languages[key].t),
        }
        for (key, entry), n in sorted(plain.count(matches).items())
    ]
    assert balance.to_pylist() == expected
    from_table = Probabilities.of_table(balance)
    from_counts = Probabilities.of_counts(counts, found)
    a, b = (
        keep_probability(matches["metadata"], matches["entries"], p)
        for p in (from_table, from_counts)
    )
    assert np.array_equal(a, b)


def test_a_balance_over_other_metadata_is_refused() -> None:
    counts = {"en": plain.language_counts([3, 2, 1])}
    found = find_thresholds(counts, {"en": 3}, p=0.1)
    with pytest.raises(IntegrityError, match="1 counted entries of 'en'"):
        list(balance_tables(counts, found, [metadata_table({"en": 2})]))
