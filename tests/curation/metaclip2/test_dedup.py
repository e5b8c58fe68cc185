"""Deduplication: independent of order, and of equal pairs the first place stays."""

from __future__ import annotations

import random

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.metaclip2.dedup import deduplicate
from schemas.ids import image_id, pair_id
from schemas.table_schemas import POOL

ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 3),
        st.sampled_from(["alt", "title"]),
    ),
    max_size=30,
)


def table_of(rows: list[tuple]) -> pa.Table:
    full = []
    for image, text, source, shard, row, key in rows:
        one = image_id(key=f"image {image}")
        full.append(
            {
                "pair_id": pair_id(one, str(text)),
                "image_id": one,
                "key": key,
                "text": str(text),
                "source": source,
                "shard": shard,
                "row": row,
            }
        )
    return pa.Table.from_pylist(full, schema=POOL.arrow)


@settings(deadline=None)
@given(ROWS, st.integers(0, 10))
def test_equals_a_plain_loop_in_any_order(rows: list[tuple], seed: int) -> None:
    best: dict[tuple, tuple] = {}
    for image, text, *place in rows:
        best[image, text] = min(best.get((image, text), tuple(place)), tuple(place))
    expected = table_of([(image, text, *place) for (image, text), place in best.items()])
    expected = expected.sort_by([("image_id", "ascending"), ("pair_id", "ascending")])
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    found = deduplicate(table_of(shuffled))
    assert found.table.equals(expected)
    assert found.stats == {"images": len({image for image, _ in best})}
    found.ledger.check(parents={"text": len(rows)}, out={"text": len(best)})
    assert found.ledger.count("text", "merged", "duplicate_pair") == len(rows) - len(best)


def test_the_same_text_of_another_image_is_another_pair() -> None:
    found = deduplicate(table_of([(0, 0, 0, 0, 0, "alt"), (1, 0, 0, 0, 1, "alt")]))
    assert found.table.num_rows == 2
    assert found.ledger.count("text", "merged") == 0
