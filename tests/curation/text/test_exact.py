"""Exact duplicates: what counts as equal, and which of the equal ones is first."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.text.documents import document_ids
from curation.text.exact import contents, equal_pairs, normalised


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("a  b\n c ", "a b c", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("a\u00a0b", "a b", True),
        ("A b", "a b", False),
        ("a, b", "a b", False),
        ("1 b", "2 b", False),
        ("\ufb01sh", "fish", False),  # compatibility forms stay apart
    ],
)
def test_what_is_equal(one: str, other: str, equal: bool) -> None:
    assert (normalised(one) == normalised(other)) is equal


def test_the_first_is_validation_then_smallest_id_then_place() -> None:
    texts = ["a b", "a  b", "a b", "x", "a b "]
    ids = document_ids([text.encode() for text in texts])
    table = pa.table(
        {
            "doc_id": ids,
            "split": ["train", "train", "train", "train", "validation"],
            "text": texts,
            "file": pa.array([1, 0, 0, 0, 2], pa.int32()),
            "position": pa.array([0, 1, 2, 3, 4]),
        }
    )
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        found = equal_pairs(contents(table.take(pa.array(order))))
        assert {row["other"] for row in found.to_pylist()} == {ids[4].as_py()}
        places = {(row["file"], row["position"]) for row in found.to_pylist()}
        assert places == {(1, 0), (0, 1), (0, 2)}
        assert set(found["how"].to_pylist()) == {"exact"}
    copies = equal_pairs(contents(table.take(pa.array([0, 2])))).to_pylist()
    assert [(row["file"], row["other_file"]) for row in copies] == [(1, 0)]  # the first place stays
