"""Each text against the metadata of its own language (MetaCLIP 2, algorithm 1, lines 1-8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.id_sets import Bools
from curation.metaclip2.language import LANGUAGE_MAP, metadata_keys
from schemas.errors import UsageError
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import ENTRIES, MATCHES

ALL = "all"
"""Metadata key of every text when languages are not isolated."""


class Matcher(Protocol):
    """What is asked of an automaton: ``kernels.matching.Automaton`` has it."""

    def match(self, texts: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Return offsets int64[n + 1] and the ascending unique entry numbers of each text."""


class LanguageIdentifier(Protocol):
    """What is asked of a language identifier."""

    def identify(self, texts: pa.Array) -> pa.Array:
        """Return string[n]: the label of each text."""


def match(
    pool: pa.Table,
    automata: Mapping[str, Matcher],
    identifier: LanguageIdentifier,
    *,
    isolation: bool = True,
    language_map: Mapping[str, str] = LANGUAGE_MAP,
) -> Outcome:
    """Return the MATCHES rows of a POOL table, in its order: texts with at least one entry.

    ``automata`` maps metadata keys to automata. Without ``isolation`` (the paper's ablation) all
    texts meet one automaton under the key "all"; the identified label is kept all the same.

    stats: ``identified`` {label: texts}, ``languages`` {metadata key: texts, matched} (texts of
    languages without metadata included), ``unknown_labels`` {label: texts} that went to "other".
    Row-wise, so a table may be cut anywhere.
    """
    if not isolation and ALL not in automata:
        raise UsageError(
            f"isolation=off needs one automaton under the key {ALL!r}, but the metadata has "
            f"{', '.join(sorted(automata)) or 'none'}: build it with isolation=off too"
        )
    texts = pool["text"].combine_chunks()
    labels = identifier.identify(texts)
    keys, unknown = metadata_keys(labels, language_map)
    if not isolation:
        keys = pa.array([ALL], pa.string()).take(pa.array(np.zeros(len(keys), np.int64)))
    has_metadata, offsets, ids = _match_by_key(texts, keys, automata)
    matched = np.diff(offsets) > 0
    ledger = _ledger(pool["pair_id"].combine_chunks(), has_metadata, matched)
    entries = pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(ids), type=ENTRIES
    )
    columns = [*pool.columns, labels, keys, entries]
    table = pa.table(columns, names=MATCHES.arrow.names).filter(pa.array(matched))
    stats = {
        "identified": {k: {"texts": n} for k, n in _tally(labels).items()},
        "languages": _languages(keys, matched),
        "unknown_labels": {k: {"texts": n} for k, n in unknown.items()},
    }
    return Outcome(MATCHES.validate(table), ledger, stats=stats)


def _match_by_key(
    texts: pa.Array, keys: pa.Array, automata: Mapping[str, Matcher]
) -> tuple[Bools, npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Run each key's automaton over its texts; return bool[n], offsets[n + 1] and entry numbers."""
    n = len(texts)
    encoded = keys.dictionary_encode()
    codes = encoded.indices.to_numpy()
    has_metadata = np.zeros(n, bool)
    lengths = np.zeros(n, np.int64)
    # Rows of one key are neighbours in `order`; results come back in that order.
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    parts: list[npt.NDArray[np.uint32]] = []
    for key, first, last in zip(encoded.dictionary.to_pylist(), edges[:-1], edges[1:], strict=True):
        if key not in automata:
            continue
        rows = order[first:last]
        offsets, ids = automata[key].match(texts.take(pa.array(rows)))
        has_metadata[rows] = True
        lengths[rows] = np.diff(offsets)
        parts.append(ids)
    grouped = np.concatenate(parts) if parts else np.empty(0, np.uint32)
    starts = np.zeros(n, np.int64)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return has_metadata, offsets, grouped[np.repeat(starts, lengths) + within]


def _ledger(ids: pa.Array, has_metadata: Bools, matched: Bools) -> Ledger:
    ledger = Ledger()
    ledger.add("text", "in", "", len(ids), id_sum(ids))
    for rows, reason in (
        (~has_metadata, "language_without_metadata"),
        (has_metadata & ~matched, "no_entry_matched"),
    ):
        if rows.any():
            ledger.add("text", "rejected", reason, int(rows.sum()), id_sum(ids.filter(rows)))
    ledger.add("text", "out", "", int(matched.sum()), id_sum(ids.filter(matched)))
    return ledger


def _tally(values: pa.Array) -> dict[str, int]:
    return {r["values"]: r["counts"] for r in pc.value_counts(values).to_pylist()}


def _languages(keys: pa.Array, matched: Bools) -> dict[str, dict[str, int]]:
    hits = _tally(keys.filter(pa.array(matched)))
    return {k: {"texts": n, "matched": hits.get(k, 0)} for k, n in sorted(_tally(keys).items())}
