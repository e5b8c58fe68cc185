"""Records to texts: one POOL row for each usable text of each record.

As the released parser does (curation/parse_wat.py): newline and carriage return become a space,
ends are stripped, an empty text is dropped, nothing else changes. Beyond it, texts with NUL or
longer than a limit are dead letters, and whole records leave that belong to an evaluation set or
score too low.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.evaluation_sets import EvaluationSets
from schemas.ids import id_sum, pair_ids
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import DEAD_LETTERS, POOL, RECORDS

STAGE = "pool"
MAX_TEXT_BYTES = 100_000

# What str.strip() strips, in every version of Python that the project runs on.
WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)

_KEPT, _EMPTY, _NUL, _LONG = 0, 1, 2, 3
_TEXT_REASONS = {_EMPTY: "empty_text", _NUL: "nul_in_text", _LONG: "text_too_long"}


def clean_texts(texts: pa.Array) -> pa.Array:
    """Return texts as the pool stores them: line ends become spaces, ends are stripped."""
    for line_end in ("\n", "\r"):
        texts = pc.replace_substring(texts, line_end, " ")
    return pc.utf8_trim(texts, characters=WHITE_SPACE)


def explode(
    records: pa.Table,
    source: int,
    shard: int,
    first_row: int = 0,
    *,
    max_text_bytes: int = MAX_TEXT_BYTES,
    min_score: float | None = None,
    evaluation: EvaluationSets | None = None,
) -> Outcome:
    """Return one POOL row for each usable text of a table of RECORDS (column image not needed).

    The table's rows are rows ``first_row`` on of shard ``shard`` of input dataset ``source``. With
    ``min_score`` a record whose score is below it, or that has none, is rejected. Rows are in
    record order; ``dedup.deduplicate`` sorts them.

    Ledger: unit record (in = out + rejected) and unit text (created by ``exploded`` = out +
    rejected). Dead letters hold the record with the one bad text, without its image; ``source``
    is "SOURCE/SHARD", ``position`` the row in that shard.
    """
    ledger = Ledger()
    kept, stats = _whole_records(records, ledger, min_score, evaluation)
    # The pool needs no pixels, and taking rows would copy them.
    table = records.select([n for n in records.column_names if n != "image"]).take(pa.array(kept))
    texts = table["texts"].combine_chunks()
    owner = pc.list_parent_indices(texts).to_numpy()
    flat = texts.flatten()
    raw = pc.fill_null(pc.struct_field(flat, "text"), "")
    keys = pc.fill_null(pc.struct_field(flat, "key"), "")
    clean = clean_texts(raw)
    verdict = _judge(raw, clean, max_text_bytes)
    columns = _Texts(table, owner, kept + first_row, keys, clean)
    ids = pair_ids(columns.image_ids(), clean)
    stay = verdict == _KEPT
    ledger.add("text", "created", "exploded", len(clean), id_sum(ids))
    for code, reason in _TEXT_REASONS.items():
        gone = verdict == code
        if gone.any():
            ledger.add("text", "rejected", reason, int(gone.sum()), id_sum(ids.filter(gone)))
    ledger.add("text", "out", "", int(stay.sum()), id_sum(ids.filter(stay)))
    pool = columns.pool(ids, source, shard).filter(stay)
    bad = np.flatnonzero((verdict == _NUL) | (verdict == _LONG))
    dead = columns.dead_letters(bad, raw, verdict, f"{source}/{shard}", max_text_bytes)
    return Outcome(pool, ledger, dead if dead.num_rows else None, stats)


def _whole_records(
    records: pa.Table, ledger: Ledger, min_score: float | None, evaluation: EvaluationSets | None
) -> tuple[npt.NDArray[np.int64], dict]:
    """Count records in and out; return the row numbers of those that stay."""
    ids = records["image_id"].combine_chunks()
    gone = np.zeros(records.num_rows, bool)
    stats: dict = {"records": records.num_rows}

    def reject(which: npt.NDArray[np.bool_], reason: str) -> None:
        nonlocal gone
        fresh = which & ~gone
        if fresh.any():
            ledger.add("record", "rejected", reason, int(fresh.sum()), id_sum(ids.filter(fresh)))
        gone = gone | which

    ledger.add("record", "in", "", records.num_rows, id_sum(ids))
    if evaluation is not None:
        found = evaluation.find(records)
        reject(found.url, "evaluation_set_url")
        reject(found.hash, "evaluation_set_hash")
        stats["evaluation_sets"] = {
            "url": int(found.url.sum()),
            "exact_hash": int(found.exact.sum()),
            "perceptual_hash": int(found.perceptual.sum()),
            "records_with_hash": int(found.hashed.sum()),
        }
    if min_score is not None:
        # Not "score < min": NaN and null must not pass.
        passes = pc.fill_null(pc.greater_equal(records["score"], min_score), False)
        reject(~passes.to_numpy(), "below_score")
    stay = ~gone
    ledger.add("record", "out", "", int(stay.sum()), id_sum(ids.filter(stay)))
    return np.flatnonzero(stay), stats


def _judge(raw: pa.Array, clean: pa.Array, max_text_bytes: int) -> npt.NDArray[np.int8]:
    lengths = pc.binary_length(clean).to_numpy()
    verdict = np.full(len(raw), _KEPT, np.int8)
    verdict[lengths > max_text_bytes] = _LONG
    verdict[lengths == 0] = _EMPTY
    verdict[pc.match_substring(raw, "\0").to_numpy(zero_copy_only=False)] = _NUL
    return verdict


@dataclass(frozen=True)
class _Texts:
    """The texts of a table of records: ``owner`` is the record of each, ``rows`` their places."""

    records: pa.Table
    owner: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    keys: pa.Array
    clean: pa.Array

    def image_ids(self) -> pa.ChunkedArray:
        return self.records["image_id"].take(pa.array(self.owner))

    def pool(self, ids: pa.Array, source: int, shard: int) -> pa.Table:
        n = len(self.owner)
        of_record = self.records.select(["image_id", "url", "score"]).take(pa.array(self.owner))
        columns = {
            "pair_id": ids,
            "image_id": of_record["image_id"],
            "url": of_record["url"],
            "key": self.keys,
            "text": self.clean,
            "source": pa.array(np.full(n, source, np.int32)),
            "shard": pa.array(np.full(n, shard, np.int32)),
            "row": pa.array(self.rows[self.owner]),
            "score": of_record["score"],
        }
        return pa.table([columns[name] for name in POOL.arrow.names], schema=POOL.arrow)

    def dead_letters(
        self,
        bad: npt.NDArray[np.int64],
        raw: pa.Array,
        verdict: npt.NDArray[np.int8],
        place: str,
        max_text_bytes: int,
    ) -> pa.Table:
        rows = [
            {
                "stage": STAGE,
                "reason": _TEXT_REASONS[int(verdict[i])],
                "error": self._error(raw[int(i)].as_py(), int(verdict[i]), max_text_bytes),
                "source": place,
                "position": int(self.rows[self.owner[i]]),
                "row": self._one_row(int(i), raw),
            }
            for i in bad
        ]
        return pa.Table.from_pylist(rows, schema=DEAD_LETTERS.arrow)

    @staticmethod
    def _error(text: str, verdict: int, max_text_bytes: int) -> str:
        if verdict == _NUL:
            return f"NUL at character {text.index(chr(0))}"
        return f"{len(text.encode())} bytes, limit max_text_bytes={max_text_bytes}"

    def _one_row(self, i: int, raw: pa.Array) -> bytes:
        record = self.records.slice(int(self.owner[i]), 1).to_pylist()[0]
        record["texts"] = [{"key": self.keys[i].as_py(), "text": raw[i].as_py()}]
        record["image"] = None
        row = RECORDS.validate(pa.Table.from_pylist([record], schema=RECORDS.arrow))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, row.schema) as writer:
            writer.write_table(row)
        return sink.getvalue().to_pybytes()
