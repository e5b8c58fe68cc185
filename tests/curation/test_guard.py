"""Guarded steps: exactly the guilty rows become dead letters, whatever raises."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.guard import ERROR_CHARS, guard
from schemas.errors import InputError, JobError
from schemas.ids import id128, id_array, id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome


def table_of(n: int, bad: set[int]) -> pa.Table:
    return pa.table(
        {
            "image_id": id_array([id128(str(i).encode()) for i in range(n)]),
            "value": pa.array([-1 if i in bad else i for i in range(n)], pa.int64()),
            "row": pa.array(range(100, 100 + n), pa.int64()),
        }
    )


def step(table: pa.Table, factor: int = 1) -> Outcome:
    """Row-wise; counts its rows, drops odd ones, and cannot take the square root of a negative."""
    values = table.column("value").to_numpy()
    if (values < 0).any():
        raise ValueError(f"negative value in {table.num_rows} rows")
    ledger = Ledger()
    ledger.add("record", "in", "", table.num_rows, id_sum(table.column("image_id")))
    odd = table.filter(pa.array(values % 2 == 1))
    ledger.add("record", "rejected", "below_score", odd.num_rows, id_sum(odd.column("image_id")))
    out = table.filter(pa.array(values % 2 == 0))
    ledger.add("record", "out", "", out.num_rows, id_sum(out.column("image_id")))
    return Outcome(out, ledger, stats={"seen": table.num_rows * factor}, side={"odd": odd})


def guarded(table: pa.Table, function: Callable[..., Outcome] = step, **more: object) -> Outcome:
    return guard(
        function, table, stage="pool", unit="record", id_column="image_id", source="0/7",
        position_column="row", **more,
    )  # fmt: skip


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
@settings(max_examples=60, deadline=None)
def test_exactly_the_guilty_rows(case: tuple[int, set[int]]) -> None:
    n, bad = case
    table = table_of(n, bad)
    outcome = guarded(table, max_failed=n)
    good = [i for i in range(n) if i not in bad]
    assert outcome.table.column("value").to_pylist() == [i for i in good if i % 2 == 0]
    outcome.ledger.check()
    assert outcome.ledger.count("record", "in") == n
    assert outcome.ledger.id_sum("record", "in") == id_sum(table.column("image_id"))
    assert outcome.ledger.count("record", "rejected", "step_failed") == len(bad)
    if bad:
        assert outcome.dead is not None
        assert outcome.dead.column("position").to_pylist() == [100 + i for i in sorted(bad)]
        assert set(outcome.dead.column("reason").to_pylist()) == {"step_failed"}
        assert set(outcome.dead.column("source").to_pylist()) == {"0/7"}
    if good:
        assert outcome.stats == {"seen": len(good)}
        assert outcome.side["odd"].column("value").to_pylist() == [i for i in good if i % 2]


def test_a_dead_letter_carries_its_row() -> None:
    table = table_of(10_000, {7_777})
    outcome = guarded(table)
    assert outcome.dead is not None
    (letter,) = outcome.dead.to_pylist()
    assert pa.ipc.open_stream(letter["row"]).read_all().equals(table.slice(7_777, 1))
    assert len(letter["row"]) < 1_500  # the row alone, not the buffers it lay in
    assert letter["error"] == "ValueError: negative value in 1 rows"


def test_one_bad_row_costs_few_calls() -> None:
    calls = []

    def counting(table: pa.Table) -> Outcome:
        calls.append(table.num_rows)
        return step(table)

    guarded(table_of(10_000, {1}), counting)
    assert len(calls) <= 2 * 14 + 1
    assert sum(calls) <= 3 * 10_000


def test_nothing_is_touched_where_nothing_fails() -> None:
    table = table_of(10, set())
    seen = []

    def once(given_table: pa.Table) -> Outcome:
        seen.append(given_table)
        return step(given_table)

    outcome = guarded(table, once)
    assert len(seen) == 1
    assert seen[0] is table
    assert outcome.dead is None


def test_a_panic_of_polars_costs_its_row() -> None:
    days = pa.array([0, 1, 2**31 - 1, 3], pa.int32())
    table = table_of(4, set()).append_column("day", days)

    def dated(rows: pa.Table) -> Outcome:
        text = pl.from_arrow(rows.column("day")).cast(pl.Date).dt.strftime("%Y-%m-%d")
        return Outcome(pa.table({"text": text.to_arrow()}), Ledger())

    with pytest.raises(BaseException, match="out-of-range") as caught:
        dated(table)
    assert not isinstance(caught.value, Exception)  # `except Exception` would let it through
    outcome = guarded(table, dated)
    assert outcome.table.num_rows == 3
    assert outcome.dead is not None
    assert outcome.dead.column("position").to_pylist() == [102]
    assert outcome.dead.column("error")[0].as_py().startswith("PanicException: ")


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(), SystemExit(3), GeneratorExit(), InputError("changed"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)  # fmt: skip
def test_what_no_row_can_cause_passes_through(error: BaseException) -> None:
    def failing(rows: pa.Table) -> Outcome:
        raise error

    with pytest.raises(type(error)):
        guarded(table_of(5, set()), failing)


def test_memory_errors_of_large_tables_cost_no_row() -> None:
    def hungry(rows: pa.Table) -> Outcome:
        if rows.num_rows > 10:
            raise MemoryError
        return step(rows)

    outcome = guarded(table_of(100, set()), hungry)
    assert outcome.ledger.count("record", "in") == 100
    assert outcome.ledger.count("record", "rejected", "step_failed") == 0


def test_a_step_that_is_broken_is_not_a_table_of_bad_rows() -> None:
    def broken(rows: pa.Table) -> Outcome:
        raise TypeError("missing argument")

    with pytest.raises(JobError, match=r"more than 1000 of 5000 rows.*TypeError: missing argument"):
        guarded(table_of(5000, set()), broken)


def test_a_table_of_nothing_but_bad_rows() -> None:
    outcome = guarded(table_of(3, {0, 1, 2}))
    assert outcome.table.num_rows == 0
    assert outcome.table.column_names == ["image_id", "value", "row"]
    assert outcome.dead is not None
    assert outcome.dead.num_rows == 3


def test_arguments_and_the_steps_own_dead_letters_arrive() -> None:
    def twice(rows: pa.Table, factor: int, *, extra: str) -> Outcome:
        found = step(rows, factor)
        inner = guard(step, table_of(1, {0}), stage=extra, unit="record")
        found.dead = inner.dead
        return found

    outcome = guard(twice, table_of(8, {3}), 2, stage="pool", unit="record", extra="inner")
    assert outcome.stats == {"seen": 14}
    assert outcome.dead is not None
    stages = outcome.dead.column("stage").to_pylist()
    assert stages.count("pool") == 1
    assert stages.count("inner") > 1


def test_long_errors_are_cut() -> None:
    def loud(rows: pa.Table) -> Outcome:
        if pc.any(pc.equal(rows.column("value"), 2)).as_py():
            raise ValueError("x" * 10_000 + "\ud83d")
        return step(rows)

    outcome = guarded(table_of(4, set()), loud)
    assert outcome.dead is not None
    assert len(outcome.dead.column("error")[0].as_py()) == ERROR_CHARS


def test_chunked_tables_are_bisected_too() -> None:
    parts = [table_of(50, set()), table_of(50, {20}), table_of(1, set())]
    table = pa.concat_tables(parts)
    assert table.column("value").num_chunks == 3
    outcome = guard(step, table, stage="pool", unit="record")
    assert outcome.dead is not None
    assert outcome.dead.column("position").to_pylist() == [70]
    assert outcome.ledger.count("record", "in") == np.int64(101)
