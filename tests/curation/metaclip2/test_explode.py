"""Records to texts: what stays, what is refused and why, and that every row is accounted for."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.evaluation_sets import EvaluationSets
from curation.metaclip2.explode import WHITE_SPACE, clean_texts, explode
from schemas.ids import image_id, pair_id
from schemas.table_schemas import IMAGE, POOL, RECORDS
from tests.curation.metaclip2.plain import records


def one(*texts: str, **settings: object):
    table = records([{"url": "http://a/1", "texts": [("alt", text) for text in texts]}])
    return explode(table, 0, 0, **settings)  # type: ignore[arg-type]


def texts_of(outcome) -> list[str]:
    return outcome.table["text"].to_pylist()


def rejected(outcome) -> dict[str, int]:
    rows = outcome.ledger.rows()
    return {r["reason"]: r["count"] for r in rows if r["kind"] == "rejected"}


@pytest.mark.spec("metaclip2", 7)
def test_empty_texts_are_dropped_and_digits_are_legal() -> None:
    found = one("", " \t \n", "\u3000\xa0", "12")
    assert texts_of(found) == ["12"]
    assert rejected(found) == {"empty_text": 3}
    assert found.dead is None


@pytest.mark.spec("metaclip2", 8)
def test_line_ends_become_spaces_and_nothing_else_changes() -> None:
    raw = "  Two\nlines\r\nand\ta tab,  two spaces &amp; Ünï ﬁ\u200b "
    assert texts_of(one(raw)) == ["Two lines  and\ta tab,  two spaces &amp; Ünï ﬁ\u200b"]


def test_white_space_is_that_of_str_strip() -> None:
    every = {chr(c) for c in range(0x110000) if chr(c).isspace()}
    assert set(WHITE_SPACE) == every


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab \n\r\t\x1c\x85\u2003\u3000é語", max_size=8), max_size=6))
def test_cleaning_equals_python(texts: list[str]) -> None:
    expected = [t.replace("\n", " ").replace("\r", " ").strip() for t in texts]
    assert clean_texts(pa.array(texts, pa.string())).to_pylist() == expected


def test_ids_and_places() -> None:
    table = records(
        [
            {"url": "http://a/1", "texts": [("alt", " A "), ("title", "B")]},
            {"url": "http://a/2", "texts": []},
            {"url": "http://a/3", "texts": [("alt", "C")], "score": 0.5},
        ]
    )
    found = explode(table, 2, 7, 100)
    first, third = image_id(url="http://a/1"), image_id(url="http://a/3")
    rows = found.table.to_pylist()
    assert [(r["pair_id"], r["image_id"], r["url"], r["key"], r["text"]) for r in rows] == [
        (pair_id(first, "A"), first, "http://a/1", "alt", "A"),
        (pair_id(first, "B"), first, "http://a/1", "title", "B"),
        (pair_id(third, "C"), third, "http://a/3", "alt", "C"),
    ]
    assert {(r["source"], r["shard"]) for r in rows} == {(2, 7)}
    assert [(r["row"], r["score"]) for r in rows] == [(100, None), (100, None), (102, 0.5)]
    assert found.table.schema.equals(POOL.arrow, check_metadata=True)
    assert found.stats["records"] == 3
    found.ledger.check(parents={"record": 3}, out={"text": 3})


def test_nul_and_long_texts_are_dead_letters_that_can_be_replayed() -> None:
    long = "é" * 51
    table = records(
        [
            {"url": "http://a/0", "texts": [("alt", "fine")]},
            {"url": "http://a/1", "texts": [("alt", "good"), ("title", "a\0b"), ("x", long)]},
        ]
    )
    pictures = pa.array([{"bytes": b"x" * 1000, "path": None}] * 2, IMAGE)
    table = table.set_column(3, RECORDS.arrow.field("image"), pictures)
    found = explode(table, 1, 4, 10, max_text_bytes=100)
    assert texts_of(found) == ["fine", "good"]
    assert rejected(found) == {"nul_in_text": 1, "text_too_long": 1}
    found.ledger.check()
    assert found.dead is not None
    dead = found.dead.to_pylist()
    assert [(d["stage"], d["reason"], d["source"], d["position"]) for d in dead] == [
        ("pool", "nul_in_text", "1/4", 11),
        ("pool", "text_too_long", "1/4", 11),
    ]
    assert [d["error"] for d in dead] == [
        "NUL at character 1",
        "102 bytes, limit max_text_bytes=100",
    ]
    row = pa.ipc.open_stream(BytesIO(dead[1]["row"])).read_all()
    assert RECORDS.validate(row)["texts"].to_pylist() == [[{"key": "x", "text": long}]]
    assert row["image"].to_pylist() == [None]
    again = explode(row, 1, 4, dead[1]["position"])
    assert texts_of(again) == [long]


def test_the_limit_is_in_bytes_of_the_stored_text_and_inclusive() -> None:
    assert texts_of(one("  éé \n", max_text_bytes=4)) == ["éé"]
    assert rejected(one("ééa", max_text_bytes=4)) == {"text_too_long": 1}
    assert rejected(one("\0" * 9, max_text_bytes=4)) == {"nul_in_text": 1}


def test_scores_below_the_minimum_or_missing_are_rejected_as_records() -> None:
    rows = [
        {"url": f"http://a/{i}", "texts": [("alt", "t")], "score": score}
        for i, score in enumerate([0.1, 0.5, None, float("nan"), 0.9])
    ]
    found = explode(records(rows), 0, 0, min_score=0.5)
    assert found.table["row"].to_pylist() == [1, 4]
    assert rejected(found) == {"below_score": 3}
    found.ledger.check(parents={"record": 5}, out={"text": 2})
    assert explode(records(rows), 0, 0).table.num_rows == 5


def test_evaluation_sets_leave_before_anything_is_counted_and_each_record_once() -> None:
    bad = bytes(range(32))
    rows = [
        {"url": "http://EVAL/1", "texts": [("alt", "a"), ("title", "b")]},
        {"url": "http://eval/1", "texts": [("alt", "a")], "sha256": bad, "score": 0.0},
        {"url": "http://ok/1", "texts": [("alt", "a")], "sha256": bad},
        {"url": "http://ok/2", "texts": [("alt", "a")], "sha256": b"\1" * 32, "score": 1.0},
    ]
    held_out = pa.table({"url": ["http://eval/1"], "sha256": pa.array([bad], pa.binary(32))})
    evaluation = EvaluationSets.of([held_out])
    found = explode(records(rows), 0, 0, evaluation=evaluation, min_score=0.5)
    assert rejected(found) == {"evaluation_set_url": 2, "evaluation_set_hash": 1}
    assert found.table["row"].to_pylist() == [3]
    found.ledger.check(parents={"record": 4}, out={"text": 1})
    assert found.stats["evaluation_sets"] == {
        "url": 2,
        "exact_hash": 2,
        "perceptual_hash": 0,
        "records_with_hash": 3,
    }


@settings(deadline=None)
@given(
    st.lists(st.lists(st.text(alphabet="a \0\n", max_size=4), max_size=3), min_size=0, max_size=8),
    st.integers(0, 8),
)
def test_any_cut_gives_the_same_rows_and_balances(texts: list[list[str]], cut: int) -> None:
    rows = [{"url": f"http://a/{i}", "texts": [("k", t) for t in ts]} for i, ts in enumerate(texts)]
    table = records(rows)
    whole = explode(table, 0, 0, max_text_bytes=2)
    whole.ledger.check()
    cut = min(cut, table.num_rows)
    parts = [explode(table.slice(0, cut), 0, 0, 0, max_text_bytes=2)]
    parts.append(explode(table.slice(cut), 0, 0, cut, max_text_bytes=2))
    joined = pa.concat_tables([p.table for p in parts])
    assert joined.equals(whole.table)
    parts[0].ledger.merge(parts[1].ledger)
    assert parts[0].ledger == whole.ledger


def test_null_keys_and_texts_count_as_empty() -> None:
    texts = pa.array([[{"key": None, "text": "a"}, {"key": "k", "text": None}]])
    table = records([{"url": "http://a/1"}])
    table = table.set_column(
        2, RECORDS.arrow.field("texts"), texts.cast(RECORDS.arrow.field("texts").type)
    )
    found = explode(table, 0, 0)
    assert found.table.select(["key", "text"]).to_pylist() == [{"key": "", "text": "a"}]
    assert rejected(found) == {"empty_text": 1}


def test_columns_that_are_not_needed_may_be_missing() -> None:
    table = records([{"url": "http://a/1", "texts": [("alt", "a")]}])
    few = table.select(["image_id", "url", "texts", "score"])
    assert explode(few, 0, 0).table.equals(explode(table, 0, 0).table)
    assert np.all(explode(few.slice(0, 0), 0, 0).table["row"].to_numpy() == [])
