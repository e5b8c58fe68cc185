"""Raw documents to DOCUMENTS rows: checked, identified, put into a split, filtered, all accounted for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.guard import dead_letters
from curation.ingest.files import File, unchanged
from curation.ingest.texts import invalid_utf8
from curation.metaclip2.language import Identifier
from curation.text.filters import verdict
from curation.text.options import TextOptions
from curation.text.plan import TextUnit
from curation.text.reading import RAW, Bad, RawTexts, Render, raw_texts
from schemas.ids import ID_TYPE, id_sum, uniform
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.text_schemas import DOCUMENTS

STAGE = "documents"
TRAIN, VALIDATION = "train", "validation"
SALT_SPLIT = 3
"""Salt for the split of a document (beside those of ``schemas.ids``)."""

IDENTIFIED_CHARACTERS = 20_000
"""Characters of a document by which its language is identified."""


@dataclass(frozen=True)
class Sieve:
    """What a document must be: rules by name, and the languages that are kept (none: all)."""

    rules: Mapping[str, float] = field(default_factory=dict)
    languages: tuple[str, ...] = ()


def document_ids(texts: Sequence[bytes]) -> pa.Array:
    """``schemas.ids.id128(b"document", text)`` of each text (UTF-8): binary(16)[n]."""
    prefix = hashlib.blake2b(digest_size=16)
    prefix.update(len(b"document").to_bytes(8, "little"))
    prefix.update(b"document")
    out = bytearray()
    for text in texts:
        h = prefix.copy()
        h.update(len(text).to_bytes(8, "little"))
        h.update(text)
        out += h.digest()
    return pa.FixedSizeBinaryArray.from_buffers(ID_TYPE, len(texts), [None, pa.py_buffer(out)])


def in_validation(ids: pa.Array | pa.ChunkedArray, share: float) -> np.ndarray:
    """bool[n]: which documents are held out. A function of id and share alone; what a share holds
    out, a larger share does too."""
    return uniform(0, 0, ids, SALT_SPLIT) < share


def read_documents(
    unit: TextUnit,
    options: TextOptions,
    sieve: Sieve,
    validation: float,
    render: Render | None = None,
) -> Iterator[Outcome]:
    """DOCUMENTS tables of one unit in the order of its file, each with its ledger and dead letters.

    Raises InputError if the file is no longer what was pinned, before the first table or after the
    last: a run that read changed input never commits.
    """
    file = File(unit.path, unit.bytes, unit.stamp)
    unchanged(file, unit.checksum)
    for raw in raw_texts(unit, options, render):
        yield finish(raw, unit, options, sieve, validation)
    unchanged(file, unit.checksum)


class _Refused:
    """First reason and error of each refused row; some leave a dead letter."""

    def __init__(self, rows: int) -> None:
        self.kept = np.ones(rows, bool)
        self.counts: dict[str, int] = {}
        self.letters: dict[int, tuple[str, str]] = {}

    def add(self, row: int, reason: str, error: str = "") -> None:
        if self.kept[row]:
            self.kept[row] = False
            self.counts[reason] = self.counts.get(reason, 0) + 1
            if error:
                self.letters[row] = (reason, error)


def finish(
    raw: RawTexts, unit: TextUnit, options: TextOptions, sieve: Sieve, validation: float
) -> Outcome:
    """One table of a unit.

    Documents that are empty, in another language or fail a rule are counted and leave no dead
    letter: nothing was wrong with their rows.
    """
    table = raw.table.combine_chunks()
    texts: Any = _whole(table["text"])
    refused = _Refused(len(texts))
    for column in ("text", "source", "language"):
        for row in np.flatnonzero(invalid_utf8(_whole(table[column]))).tolist():
            refused.add(row, "bad_utf8", f"the {column} is not valid UTF-8")
    lengths = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(lengths > options.max_document_bytes).tolist():
        error = f"the document has {lengths[row]} bytes, limit {options.max_document_bytes}"
        refused.add(row, "document_too_long", error)
    values: list[bytes | None] = texts.to_pylist()
    for row in np.flatnonzero(refused.kept).tolist():
        value = values[row]
        if not value or not value.strip() or not value.decode().strip():
            refused.add(row, "empty_text")
        elif b"\0" in value:
            refused.add(row, "nul_in_text", f"a NUL at byte {value.index(0)} of the text")
    languages = _languages(table, texts, refused, sieve)
    if sieve.rules:
        for row in np.flatnonzero(refused.kept).tolist():
            reason = verdict((values[row] or b"").decode(), sieve.rules)
            if reason is not None:
                refused.add(row, reason)
    keep = np.flatnonzero(refused.kept)
    at = pa.array(keep)
    ids = document_ids([values[row] or b"" for row in keep.tolist()])
    held_out = in_validation(ids, validation) if len(keep) else np.zeros(0, bool)
    source: Any = _whole(table["source"]).take(at)
    out = DOCUMENTS.validate(
        pa.table(
            {
                "doc_id": ids,
                "split": pa.array(np.where(held_out, VALIDATION, TRAIN), pa.string()),
                "source": source.cast(pa.string()).fill_null(unit.source),
                "language": languages.take(at),
                "text": texts.take(at).cast(pa.string()),
                "file": pa.array(np.full(len(keep), unit.file, np.int32)),
                "position": _whole(table["position"]).take(at),
            }
        )
    )
    return Outcome(
        out,
        _ledger(len(texts), raw.bad, refused, out),
        _letters(table, raw.bad, refused, unit.path),
        _stats(out, lengths[keep], held_out),
    )


def _whole(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


@lru_cache(maxsize=1)
def _identifier() -> Identifier:
    return Identifier()


def _languages(table: pa.Table, texts: Any, refused: _Refused, sieve: Sieve) -> Any:
    """string[n]: the column where there is one, else identified if languages are asked for."""
    rows = np.flatnonzero(refused.kept)
    column: Any = _whole(table["language"])
    given = pa.nulls(len(texts), pa.string())
    if column.null_count < len(column):
        fine = pc.if_else(pa.array(refused.kept), column, pa.scalar(None, pa.binary()))
        given = fine.cast(pa.string())
    if not sieve.languages:
        return given
    unknown = rows[given.take(pa.array(rows)).is_null().to_numpy(zero_copy_only=False)]
    if len(unknown):
        some = texts.take(pa.array(unknown)).cast(pa.string())
        found = _identifier().identify(pc.utf8_slice_codeunits(some, 0, IDENTIFIED_CHARACTERS))
        mask = np.zeros(len(texts), bool)
        mask[unknown] = True
        given = pc.replace_with_mask(given, pa.array(mask), found)
    kept = pc.is_in(given, value_set=pa.array(sieve.languages, pa.string()))
    wanted = kept.to_numpy(zero_copy_only=False)
    for row in rows[~wanted[rows]].tolist():
        refused.add(row, "other_language")
    return given


def _ledger(rows: int, bad: Sequence[Bad], refused: _Refused, out: pa.Table) -> Ledger:
    ledger = Ledger()
    ledger.add("document", "in", "", rows + sum(piece.count for piece in bad))
    for reason, count in refused.counts.items():
        ledger.add("document", "rejected", reason, count)
    for piece in bad:
        ledger.add("document", "rejected", piece.reason, piece.count)
    ledger.add("document", "out", "", out.num_rows, id_sum(out["doc_id"]))
    return ledger


def _stats(out: pa.Table, lengths: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
    stats: dict[str, Any] = {"documents": {}, "bytes": {}, "sources": {}, "languages": {}}
    for split, mine in ((TRAIN, ~held_out), (VALIDATION, held_out)):
        stats["documents"][split] = int(mine.sum())
        stats["bytes"][split] = int(lengths[mine].sum())
    for name, column in (("sources", "source"), ("languages", "language")):
        for row in out[column].value_counts().to_pylist():
            stats[name][row["values"] or "unknown"] = row["counts"]
    return stats


def _letters(table: pa.Table, bad: Sequence[Bad], refused: _Refused, path: str) -> pa.Table | None:
    """Dead letters in the order of positions; the text of one that is too long stays in its file."""
    if not bad and not refused.letters:
        return None
    rows = sorted(refused.letters)
    mine = table.take(pa.array(rows, pa.int64()))
    short = pa.array([refused.letters[row][0] != "document_too_long" for row in rows], pa.bool_())
    mine = mine.set_column(
        RAW.get_field_index("text"),
        "text",
        pc.if_else(short, _whole(mine["text"]), pa.scalar(None, pa.binary())),
    )
    found = pa.table(
        {
            "position": pa.array([piece.position for piece in bad], pa.int64()),
            "text": pa.nulls(len(bad), pa.binary()),
            "source": pa.nulls(len(bad), pa.binary()),
            "language": pa.nulls(len(bad), pa.binary()),
            "raw": pa.array([piece.raw or None for piece in bad], pa.binary()),
        },
        schema=RAW,
    )
    whole = pa.concat_tables([mine.cast(RAW), found])
    said = [refused.letters[row] for row in rows] + [(p.reason, p.error) for p in bad]
    positions = whole["position"].to_numpy()
    order = np.argsort(positions, kind="stable").tolist()
    return dead_letters(
        whole,
        order,
        stage=STAGE,
        reasons=[said[i][0] for i in order],
        errors=[said[i][1] for i in order],
        source=path,
        positions=positions[order].tolist(),
    )
