"""Conservation of rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import IntegrityError
from schemas.ledger import KINDS, Ledger
from schemas.reasons import REASONS


def ledger(*rows: tuple[str, str, str, int, int]) -> Ledger:
    made = Ledger()
    for row in rows:
        made.add(*row)
    return made


def funnel() -> Ledger:
    return ledger(
        ("text", "in", "", 10, 100),
        ("text", "created", "exploded", 5, 50),
        ("text", "out", "", 8, 80),
        ("text", "rejected", "empty_text", 3, 30),
        ("text", "merged", "duplicate_pair", 2, 20),
        ("text", "sampled_out", "not_drawn", 2, 20),
    )


def test_balanced_ledger_passes() -> None:
    funnel().check(parents={"text": 10}, out={"text": 8}, out_id_sum={"text": 80})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [1, 7])
def test_any_lost_or_doubled_row_is_found(kind: str, change: int) -> None:
    """Adding to any one term breaks the balance, and the message has the numbers."""
    reason = {"in": "", "out": "", "created": "generated", "rejected": "bad_utf8",
              "merged": "duplicate_pair", "sampled_out": "not_drawn"}[kind]  # fmt: skip
    broken = funnel()
    broken.add("text", kind, reason, change)
    with pytest.raises(IntegrityError, match="do not balance") as caught:
        broken.check()
    left = 15 + (change if kind in ("in", "created") else 0)
    assert f"= {left}, but" in str(caught.value)
    assert caught.value.exit_code == 5


def test_equal_counts_of_other_rows_are_found() -> None:
    swapped = ledger(("text", "in", "", 2, 111), ("text", "out", "", 2, 112))
    with pytest.raises(IntegrityError, match="ids do not"):
        swapped.check()


def test_ids_are_compared_only_where_both_sides_have_them() -> None:
    ledger(("image", "in", "", 2, 5), ("image", "out", "", 2, 0)).check()


def test_units_balance_alone() -> None:
    mixed = ledger(
        ("record", "in", "", 3, 0), ("record", "out", "", 2, 0),
        ("text", "in", "", 2, 0), ("text", "out", "", 3, 0),
    )  # fmt: skip
    with pytest.raises(IntegrityError) as caught:
        mixed.check()
    assert "record: in 3" in str(caught.value)
    assert "text: in 2" in str(caught.value)


def test_totals_outside_the_ledger_are_compared() -> None:
    with pytest.raises(IntegrityError, match="10 rows in, the input manifests 11"):
        funnel().check(parents={"text": 11})
    with pytest.raises(IntegrityError, match="8 rows out, the shards 7"):
        funnel().check(out={"text": 7})
    with pytest.raises(IntegrityError, match="are not the ids written"):
        funnel().check(out_id_sum={"text": 81})
    with pytest.raises(IntegrityError, match="0 rows out, the shards 4"):
        Ledger().check(out={"record": 4})


def test_remove_takes_a_kind_out_and_returns_it() -> None:
    book = funnel()
    assert book.remove("text", "out") == (8, 80)
    assert book.count("text", "out") == 0 and book.count("text", "in") == 10
    assert book.remove("image", "out") == (0, 0)


def test_unregistered_words_are_refused() -> None:
    for bad in (
        ("text", "rejected", "because", 1),
        ("text", "rejected", "", 1),
        ("text", "out", "empty_text", 1),
        ("page", "in", "", 1),
        ("text", "lost", "", 1),
        ("text", "in", "", -1),
    ):
        with pytest.raises(ValueError):
            Ledger().add(*bad)


def test_reasons_explain_themselves() -> None:
    for name, text in REASONS.items():
        assert name.isidentifier() and name.islower()
        assert 10 < len(text) < 100 and not text.endswith(".")


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["text", "image"]),
        st.sampled_from(["in", "out"]),
        st.integers(0, 10**12),
        st.integers(0, 2**128 - 1),
    ),
    max_size=12,
)


@given(ROWS, st.integers(0, 12))
def test_parts_add_up_and_survive_json(rows: list[tuple[str, str, int, int]], cut: int) -> None:
    whole, left, right = Ledger(), Ledger(), Ledger()
    for i, (unit, kind, count, total) in enumerate(rows):
        whole.add(unit, kind, "", count, total)
        (left if i < cut else right).add(unit, kind, "", count, total)
    right.merge(left)  # merged in the other order
    assert right == whole
    assert Ledger.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert whole.count("text", "in") == sum(r[2] for r in rows if r[:2] == ("text", "in"))
