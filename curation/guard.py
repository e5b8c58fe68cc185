"""Row-wise steps that survive their rows: a failing table is bisected down to the guilty rows.

Beam's exception handling works on whole elements, and an element here is a table of thousands of
rows. ``guard`` catches per table, halves the table until the failing rows are alone, and makes
exactly those dead letters (``step_failed``). Cost of one bad row in n: about 2 log2(n) calls over
2 n rows in all; nothing while no row fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from schemas.errors import HeadraceError, JobError
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome, merge_stats
from schemas.table_schemas import DEAD_LETTERS

ERROR_CHARS = 500
"""Characters of an error message that a dead letter keeps."""


def row_bytes(table: pa.Table, row: int) -> bytes:
    """One row of ``table`` as the Arrow IPC stream that a dead letter carries."""
    sink = pa.BufferOutputStream()
    # take copies only that row; a slice would carry its neighbours' buffers along.
    one = table.take(pa.array([row]))
    with pa.ipc.new_stream(sink, one.schema) as writer:
        writer.write_table(one)
    return sink.getvalue().to_pybytes()


def dead_letters(
    table: pa.Table,
    rows: Sequence[int],
    *,
    stage: str,
    reasons: Sequence[str],
    errors: Sequence[str],
    source: str | Sequence[str] = "",
    positions: Sequence[int] | None = None,
) -> pa.Table:
    """DEAD_LETTERS rows for the given rows of a step's input table, each with its reason and error.

    ``positions`` are the rows' numbers in ``source`` (their place in ``table`` if not given).
    """
    places = rows if positions is None else positions
    sources = [source] * len(rows) if isinstance(source, str) else list(source)
    return DEAD_LETTERS.validate(
        pa.table(
            {
                "stage": pa.array([stage] * len(rows), pa.string()),
                "reason": pa.array(list(reasons), pa.string()),
                "error": pa.array([_short(error) for error in errors], pa.string()),
                "source": pa.array(sources, pa.string()),
                "position": pa.array([int(place) for place in places], pa.int64()),
                "row": pa.array([row_bytes(table, int(row)) for row in rows], pa.binary()),
            }
        )
    )


def _short(error: str) -> str:
    clean = error.encode("utf-8", "replace").decode()
    return clean if len(clean) <= ERROR_CHARS else clean[: ERROR_CHARS - 1] + "…"


def guard(
    step: Callable[..., Outcome],
    table: pa.Table,
    *args: Any,
    stage: str,
    unit: str,
    id_column: str | None = None,
    source: str = "",
    position_column: str | None = None,
    max_failed: int | None = None,
    **kwargs: Any,
) -> Outcome:
    """``step(table, *args, **kwargs)``, minus the rows on which it raises.

    The step must be row-wise: what it returns for a row may not depend on the other rows. Failed
    rows are counted as ``in`` and ``rejected`` (``step_failed``) of ``unit``, with the id sums of
    ``id_column`` where given. Polars' PanicException, a BaseException, is caught too;
    KeyboardInterrupt, SystemExit, errors meant for the user and errors of the operating system
    pass through. Raises JobError if more than ``max_failed`` rows of the table fail (by default
    1,000 or a tenth of it, whichever is more): that is a fault of the step, not of rows.
    """
    limit = max(1000, table.num_rows // 10) if max_failed is None else max_failed
    parts: list[Outcome] = []
    failed: list[tuple[int, str]] = []
    todo = [(0, table.num_rows)]
    while todo:
        start, stop = todo.pop()
        whole = start == 0 and stop == table.num_rows
        try:
            parts.append(
                step(table if whole else table.slice(start, stop - start), *args, **kwargs)
            )
        except BaseException as error:
            if _passes(error) or table.num_rows == 0:
                raise
            if stop - start > 1:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]  # the first half is next: order is kept
                continue
            failed.append((start, f"{type(error).__name__}: {error}"))
            if len(failed) > limit:
                raise JobError(
                    f"{stage}: more than {limit} of {table.num_rows} rows of one table failed, "
                    f"the first with {failed[0][1][:ERROR_CHARS]}. So many failures are a fault of "
                    "the step or its settings; nothing of this table was kept"
                ) from error
    if not failed and len(parts) == 1:
        return parts[0]
    rows = [row for row, _ in failed]
    ledger = Ledger()
    if failed:
        ids = id_sum(table.column(id_column).take(pa.array(rows))) if id_column else 0
        ledger.add(unit, "in", "", len(rows), ids)
        ledger.add(unit, "rejected", "step_failed", len(rows), ids)
    dead = dead_letters(
        table,
        rows,
        stage=stage,
        reasons=["step_failed"] * len(rows),
        errors=[error for _, error in failed],
        source=source,
        positions=(
            [table.column(position_column)[row].as_py() for row in rows]
            if position_column
            else None
        ),
    )
    # A table whose every row failed still has to say what its (empty) result looks like.
    return _joined(parts or [step(table.slice(0, 0), *args, **kwargs)], ledger, dead)


def _passes(error: BaseException) -> bool:
    """Whether the error is none of a row's making."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | HeadraceError):
        return True
    return isinstance(error, OSError) and error.errno is not None


def _joined(parts: list[Outcome], ledger: Ledger, dead: pa.Table) -> Outcome:
    stats: dict[str, Any] = {}
    side: dict[str, list[pa.Table]] = {}
    letters = []
    for part in parts:
        ledger.merge(part.ledger)
        stats = merge_stats(stats, part.stats)
        for name, table in part.side.items():
            side.setdefault(name, []).append(table)
        if part.dead is not None:
            letters.append(part.dead)
    return Outcome(
        table=pa.concat_tables([part.table for part in parts]),
        ledger=ledger,
        dead=pa.concat_tables([*letters, dead]),
        stats=stats,
        side={name: pa.concat_tables(tables) for name, tables in side.items()},
    )
