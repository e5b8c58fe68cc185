"""Counts: exact, of texts, the same however the matches are cut."""

from __future__ import annotations

import random
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.metaclip2 import counts
from schemas.table_schemas import COUNTS
from tests.curation.metaclip2 import plain

SIZES = {"en": 400, "de": 90, "th": 20}


def as_dict(table: pa.Table) -> dict[tuple[str, int], int]:
    return {(r["metadata"], r["entry"]): r["count"] for r in table.to_pylist()}


@pytest.mark.spec("metaclip2", 15)
@pytest.mark.parametrize("seed", range(3))
def test_any_split_in_any_order_gives_the_counts_of_one_pass(seed: int) -> None:
    matches = plain.random_matches(seed, 400, SIZES)
    whole = counts.count(matches)
    assert as_dict(whole) == plain.count(matches)
    rng = random.Random(seed)
    for parts in (1, 2, 7, 40):
        cuts = sorted(rng.randrange(matches.num_rows + 1) for _ in range(parts - 1))
        edges = [0, *cuts, matches.num_rows]
        shards = [counts.count(matches.slice(a, b - a)) for a, b in pairwise(edges)]
        rng.shuffle(shards)
        assert counts.add(shards).equals(whole)
        tree = counts.add([counts.add(shards[::2]), counts.add(shards[1::2])])
        assert tree.equals(whole)
    assert whole.schema.equals(COUNTS.arrow, check_metadata=True)


def test_counts_are_of_texts_not_of_images() -> None:
    rows = [("one image", f"text {i}", "en", [4, 7]) for i in range(3)]
    assert as_dict(counts.count(plain.matches(rows))) == {("en", 4): 3, ("en", 7): 3}


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.tuples(st.sampled_from(["en", "z", "aa"]), st.sampled_from([0, 1, 5, 2**32 - 1])),
            st.integers(1, 2**61),
        ),
        max_size=4,
    )
)
def test_sums_are_exact(parts: list[dict]) -> None:
    expected: dict = {}
    for part in parts:
        for key, n in part.items():
            expected[key] = expected.get(key, 0) + n
    found = counts.add([plain.counts_table(part) for part in parts])
    assert found.equals(plain.counts_table(expected))


def test_by_language_and_tables_cut_inside_a_language() -> None:
    table = plain.counts_table({("de", 3): 1, ("en", 0): 5, ("en", 9): 2, ("th", 1): 4})
    for found in (
        counts.by_language(table),
        counts.of_tables([table.slice(0, 2), table.slice(2)]),
        counts.of_tables([table.slice(2), table.slice(0, 2)]),
    ):
        assert {k: (c.entries.tolist(), c.counts.tolist()) for k, c in found.items()} == {
            "de": ([3], [1]),
            "en": ([0, 9], [5, 2]),
            "th": ([1], [4]),
        }
    assert counts.by_language(table)["en"].matches == 7
    assert counts.by_language(COUNTS.empty()) == {}
    assert counts.add([]).equals(COUNTS.empty())
    assert counts.count(plain.matches([])).num_rows == 0
