"""What became of a document of a run of `tokens`: the lines that `why` prints, stage by stage.

A document is named by its id (32 hex digits, a hash of its text) or by its place, FILE:POSITION: the end
of an input's path, and the position that DOCUMENTS and dead letters hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.text.again import read_places
from curation.text.documents import SALT_SPLIT, Sieve, document_ids, finish
from curation.text.filters import MEASURES, Measured, reason_of
from curation.text.near import NearOptions
from curation.text.options import TextOptions
from curation.text.plan import TextUnit
from curation.text.reading import RawTexts, raw_texts
from dataflows.pipelines.tokens.documents import planned, renderer_of
from dataflows.report.source import DEAD_LETTERS, Run
from dataflows.report.traces import TextTrace, reason
from schemas.errors import InputError
from schemas.ids import id_array, uniform
from schemas.schema_spec import ID

_PLACE = ["doc_id", "split", "source", "language", "text", "file", "position"]


@dataclass(frozen=True)
class Place:
    """A file of the input, by its ordinal, and a position in it."""

    file: int
    position: int


def by_id(run: Run, document: bytes) -> list[TextTrace]:
    """Every place of a document: those that the filters kept, else those that they rejected.

    Cost: the ids of `documents` are read; where it is not among them, all dead letters, and then the
    input itself, from its beginning to the document.
    """
    found = [_kept(run, row) for row in _rows(run, "documents", "doc_id", document, _PLACE)]
    return found or list(_rejected(run, document, None))


def by_place(run: Run, place: Place) -> list[TextTrace]:
    """The document at a place, whether the filters kept it or not."""
    for row in _rows(run, "documents", "position", place.position, _PLACE):
        if row["file"] == place.file:
            return [_kept(run, row)]
    return list(_rejected(run, None, place))


def place_of(run: Run, text: str) -> Place | None:
    """What FILE:POSITION names; None if a word is not of that form.

    Raises InputError for a file that is no input of the run, or more than one.
    """
    path, colon, position = text.rpartition(":")
    if not colon or not position.isdecimal() or not path:
        return None
    pins = [str(pin["path"]) for pin in run.datasets["documents"].manifest.inputs]
    files = [i for i, pin in enumerate(pins) if pin == path or pin.endswith("/" + path)]
    if len(files) != 1:
        what = "is the end of more than one input" if files else "is no input of the run"
        raise InputError(f"{path} {what} ({', '.join(pins[:5])}): give more of its path")
    return Place(files[0], int(position))


# -- what the filters kept ---------------------------------------------------------------------


def _kept(run: Run, row: Mapping[str, Any]) -> TextTrace:
    manifest = run.datasets["documents"].manifest
    trace = TextTrace(row["text"], row["source"], row["doc_id"])
    path = str(manifest.inputs[row["file"]]["path"])
    trace.note("documents", f"{path}, position {row['position']}")
    size = len(row["text"].encode())
    language = f", language {row['language']}" if row["language"] else ""
    trace.note("documents", f"kept by the filters: {size:,} bytes{language}")
    share = manifest.config["validation"]
    drawn = float(uniform(0, 0, id_array([row["doc_id"]]), SALT_SPLIT)[0])
    sign = "<" if drawn < share else ">="
    trace.note("documents", f"split {row['split']}: its number {drawn:.6f} {sign} {share}")
    dropped = _contaminated(run, row, trace)
    dropped = _duplicate(run, row, trace) or dropped
    if not dropped:
        _tokens(run, row, trace)
    return trace


def _contaminated(run: Run, row: Mapping[str, Any], trace: TextTrace) -> bool:
    columns = ["doc_id", "file", "position", "evaluation", "ngram"]
    hits = [
        hit
        for hit in _rows(run, "contamination", "doc_id", row["doc_id"], columns)
        if _at(hit, row)
    ]
    for hit in hits:
        line = f'shares "{hit["ngram"]}" with {hit["evaluation"]}'
        if trace.verdict:
            trace.note("contamination", line)
        else:
            trace.reject("contamination", "contaminated", line)
    return bool(hits)


def _duplicate(run: Run, row: Mapping[str, Any], trace: TextTrace) -> bool:
    columns = ["doc_id", "file", "position", "kept", "how"]
    mine = [
        hit for hit in _rows(run, "duplicates", "doc_id", row["doc_id"], columns) if _at(hit, row)
    ]
    for hit in mine:
        line = f"of document {hit['kept'].hex()}{_similar(run, row, hit['kept'])}"
        why = f"duplicate_{hit['how']}"
        if trace.verdict:
            trace.note("duplicates", f"also a duplicate ({hit['how']}) {line}")
        else:
            trace.reject("duplicates", why, line)
    if not mine and run.get("duplicates") is not None:
        count = sum(1 for _ in _rows(run, "duplicates", "kept", row["doc_id"], ["kept"]))
        if count:
            trace.note(
                "duplicates", f"kept for {count:,} duplicate{'s' if count > 1 else ''} of it"
            )
    return bool(mine)


def _similar(run: Run, row: Mapping[str, Any], other: bytes) -> str:
    """How alike two documents are: the share of equal slots of their signatures, which estimates the
    Jaccard similarity of their n-grams, and the pair that joined this one to a cluster."""
    near = run.datasets["candidates"].manifest.config.get("near") if run.get("candidates") else None
    if near is None:
        return ""
    options = NearOptions.from_json(near)
    text = _text_of(run, other)
    line = "" if text is None else f", {_estimate(row['text'], text, options)}"
    columns = ["doc_id", "file", "position", "other"]
    for pair in _rows(run, "candidates", "doc_id", row["doc_id"], columns):
        if _at(pair, row) and pair["other"] != other:
            text = _text_of(run, pair["other"])
            by = "" if text is None else f", {_estimate(row['text'], text, options)}"
            return f"{line}; joined by {pair['other'].hex()}{by}"
    return line


def _estimate(one: str, other: str, options: NearOptions) -> str:
    from kernels import minhash

    slots = minhash.signatures(pa.array([one, other]), options.words, options.slots, options.seed)
    grams = [np.unique(minhash.shingles(pa.array([t]), options.words)[0]) for t in (one, other)]
    both = len(np.intersect1d(grams[0], grams[1]))
    jaccard = both / max(1, len(grams[0]) + len(grams[1]) - both)
    equal = int((slots[0] == slots[1]).sum())
    of = f"{equal} of {options.slots} slots are equal"
    return f"Jaccard similarity {jaccard:.3f} of their {options.words}-grams ({of})"


_UNTOLD = ("no_tokens", "unknown_character")
"""Reasons for which tokens reject, without a list of the documents."""


def _tokens(run: Run, row: Mapping[str, Any], trace: TextTrace) -> None:
    dataset = run.get("tokens")
    if dataset is None:
        trace.verdict = "in documents; the run ends there"
        return
    wanted = pa.scalar(row["doc_id"], ID)
    for shard, entry in enumerate(dataset.shards()):
        first = group = 0
        for table in run.tables("tokens", ["doc_id", "file", "position", "length"], shard=shard):
            for at in pc.indices_nonzero(pc.equal(table["doc_id"], wanted)).to_pylist():
                found = table.slice(at, 1).to_pylist()[0]
                if _at(found, row):
                    trace.note("tokens", f"{found['length']:,} tokens, split {row['split']}")
                    where = f"{entry.file}, row group {group}, row {first + at}"
                    trace.note("tokens", f"shard {shard} ({where})")
                    trace.verdict = "kept"
                    return
            first, group = first + table.num_rows, group + 1
    limits = "not in the tokens, and no stage rejects it: the datasets are not of one run"
    counts = dataset.manifest.ledger
    found = [r for r in _UNTOLD if counts.count("document", "rejected", r)]
    trace.verdict = f"not kept: {' or '.join(found)} (tokens)" if found else limits


# -- what the filters rejected -------------------------------------------------------------------


def _rejected(run: Run, document: bytes | None, place: Place | None) -> Iterator[TextTrace]:
    """The document in the input, read again; its id is that of its text as it stands there."""
    manifest = run.datasets["documents"].manifest
    config = manifest.config
    options = TextOptions.from_json({**config["options"], **config.get("replay", {})})
    units = planned(config, manifest.inputs)
    render = renderer_of(config, str(manifest.run.get("runtime", {}).get("chat_template", "")))
    if place is not None:
        path = str(manifest.inputs[place.file]["path"])
        for unit, raw in read_places(units, {path: {place.position}}, options, render):
            yield _why_rejected(run, unit, raw, options)
        return
    wanted = pa.scalar(document, ID)
    for unit in units:
        for raw in raw_texts(unit, options, render):
            ids = document_ids([text or b"" for text in raw.table["text"].to_pylist()])
            for at in pc.indices_nonzero(pc.equal(ids, wanted)).to_pylist():
                yield _why_rejected(run, unit, RawTexts(raw.table.slice(at, 1)), options)
                return


def _why_rejected(run: Run, unit: TextUnit, raw: RawTexts, options: TextOptions) -> TextTrace:
    config = run.datasets["documents"].manifest.config
    sieve = Sieve(config["rules"], tuple(config["languages"]))
    outcome = finish(raw, unit, options, sieve, config["validation"])
    piece = raw.bad[0] if raw.bad else None
    row = raw.table.to_pylist()[0] if raw.table.num_rows else {}
    shown = (piece.raw if piece else row.get("text")) or b""
    position = piece.position if piece else row["position"]
    identity = document_ids([shown])[0].as_py() if piece is None else None
    source = (row.get("source") or b"").decode("utf-8", "replace") or unit.source
    trace = TextTrace(shown.decode("utf-8", "replace"), source, identity)
    trace.note("documents", f"{unit.path}, position {position}")
    why = reason(outcome.ledger)
    if not why:
        trace.verdict = (
            "not in documents, though no rule rejects it: the run was of other code, or limit="
        )
        return trace
    error = outcome.dead["error"][0].as_py() if outcome.dead is not None else ""
    trace.reject("documents", why, error or _numbers(trace.text, why, sieve))
    if run.dead.get(f"documents{DEAD_LETTERS}") is not None and error:
        trace.note(
            "documents", "its row is among the dead letters: `dataflows replay` tries it again"
        )
    return trace


def _numbers(text: str, why: str, sieve: Sieve) -> str:
    """The number of the rule that rejected a text, and its bound."""
    measured = Measured(text)
    for name, measure in MEASURES.items():
        for side in ("min", "max"):
            bound = sieve.rules.get(f"{side}_{name}")
            if bound is None or reason_of(f"{side}_{name}") != why:
                continue
            value = measure(measured)
            if value < bound if side == "min" else value > bound:
                return f"{name.replace('_', ' ')} {value:.4g}, {side}imum {bound:g}"
    return ""


# -- helpers -------------------------------------------------------------------------------


def _rows(
    run: Run, name: str, column: str, value: bytes | int, columns: list[str]
) -> Iterator[dict[str, Any]]:
    """Rows of a dataset with a value in a column; the other columns are read of their shards' rows only."""
    dataset = run.get(name)
    if dataset is None:
        return
    wanted = pa.scalar(value, dataset.schema.field(column).type)
    for shard in range(len(dataset.shards())):
        first = 0
        for table in run.tables(name, [column], shard=shard):
            at = pc.indices_nonzero(pc.equal(table[column], wanted)).to_numpy().astype(np.int64)
            if len(at):
                yield from run.take(name, shard, at + first, columns).to_pylist()
            first += table.num_rows


def _text_of(run: Run, document: bytes) -> str | None:
    row = next(_rows(run, "documents", "doc_id", document, ["text"]), None)
    return None if row is None else str(row["text"])


def _at(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (one["file"], one["position"]) == (other["file"], other["position"])
