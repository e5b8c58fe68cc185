"""Documents and tokens of a text run: sources, languages, lengths, splits, duplicates, contamination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.page.names import language_name
from curation.page.numbers import percent, share, size, whole
from curation.text.documents import TRAIN, VALIDATION
from dataflows.report.model import Tile
from dataflows.report.source import Run
from schemas.ids import uniform
from schemas.schema_spec import ID

SAMPLES = 12
EXAMPLES = 6
SHOWN = 40
"""Sources and languages that are named; what is left is one line."""

_GROUPS = 4
_SALT = 7_002  # of this page's choice of rows; no stage uses it
_CUT = 2_000  # characters of a text that the page gets to see


@dataclass(frozen=True)
class BarRow:
    """A line of a chart: a count, its share of all, and the width of its bar in per cent of the widest."""

    label: str
    count: int
    share: float | None
    width: float


@dataclass(frozen=True)
class Chart:
    """Bars under a title; ``unit`` is what they count."""

    title: str
    note: str
    unit: str
    rows: tuple[BarRow, ...]


@dataclass(frozen=True)
class Document:
    """One document of the data set."""

    doc_id: str
    split: str
    source: str
    language: str
    bytes: int
    text: str


@dataclass(frozen=True)
class Duplicate:
    """A document that went, and the one that stayed for it."""

    how: str
    doc_id: str
    text: str
    kept_id: str
    kept: str


@dataclass(frozen=True)
class Shared:
    """A document with the first n-gram that an evaluation set has too."""

    doc_id: str
    evaluation: str
    ngram: str


@dataclass(frozen=True)
class Texts:
    """The section."""

    lede: str
    charts: tuple[Chart, ...]
    samples: tuple[Document, ...]
    duplicates: tuple[Duplicate, ...]
    duplicates_lede: str
    shared: tuple[Shared, ...]
    shared_lede: str


def texts(run: Run) -> Texts | None:
    """The section's facts; None for a run without documents and tokens of text.

    Cost: manifests, one row group of at most four shards of documents, the first row groups of the
    duplicates and of the contamination, and the ids of `documents` for the texts of the examples.
    """
    if run.get("documents") is None and run.get("tokens") is None:
        return None
    return Texts(
        _lede(run),
        tuple(chart for chart in _charts(run) if chart.rows),
        tuple(_samples(run)),
        *_duplicates(run),
        *_shared(run),
    )


def tiles(run: Run) -> tuple[Tile, ...]:
    """Figures of the head of the page: tokens, documents kept, share held out."""
    stats = run.stats.get("tokens", {})
    if not stats.get("tokens"):
        return ()
    tokens, held = stats["tokens"], stats["tokens"].get(VALIDATION, 0)
    vocabulary = run.datasets["tokens"].manifest.config.get("tokens", {}).get("vocabulary")
    total = sum(tokens.values())
    found = [
        Tile(
            whole(total), "tokens", f"of a vocabulary of {whole(vocabulary)}" if vocabulary else ""
        ),
        Tile(percent(share(held, total)), "held out", f"{whole(held)} tokens for validation"),
    ]
    text = sum(run.stats.get("documents", {}).get("bytes", {}).values())
    if text and run.get("duplicates") is None and run.get("contamination") is None:
        # Of the same documents: without duplicates the text of the tokens is not known here.
        found.append(Tile(f"{text / total:.2f}", "bytes a token", f"{size(text)} of text"))
    return tuple(found)


def _lede(run: Run) -> str:
    stats = run.stats.get("tokens", {})
    if not stats.get("tokens"):
        kept = run.stats.get("documents", {}).get("documents", {})
        return (
            f"{whole(sum(kept.values()))} documents were kept; they have not been tokenised here."
        )
    parts = []
    for split in (TRAIN, VALIDATION):
        tokens, documents = stats["tokens"].get(split, 0), stats["documents"].get(split, 0)
        parts.append(f"{whole(tokens)} tokens in {whole(documents)} documents of {split}")
    mean = sum(stats["tokens"].values()) / max(1, sum(stats["documents"].values()))
    return f"{' and '.join(parts)}; a document has {mean:,.1f} tokens on average."


def _charts(run: Run) -> Iterator[Chart]:
    tokens, documents = run.stats.get("tokens", {}), run.stats.get("documents", {})
    yield Chart(
        "Lengths",
        "Documents by their tokens, end of text included.",
        "documents",
        tuple(_lengths(tokens.get("lengths", {}))),
    )
    yield Chart("Sources", "Tokens of the data set.", "tokens", _bars(tokens.get("sources", {})))
    if not tokens:
        yield Chart("Sources", "Documents kept.", "documents", _bars(documents.get("sources", {})))
    languages = documents.get("languages", {})
    if set(languages) - {"unknown"}:
        named = {f"{language_name(key)} ({key})": n for key, n in languages.items()}
        yield Chart(
            "Languages",
            "Documents that the filters kept, as given or identified.",
            "documents",
            _bars(named),
        )


def _lengths(counts: dict[str, int]) -> Iterator[BarRow]:
    """Every bucket from the first to the last, empty ones too: a gap is a fact."""
    found = {int(key): value for key, value in counts.items()}
    if not found:
        return
    total, most = sum(found.values()), max(found.values())
    for bucket in range(min(found), max(found) + 1):
        count = found.get(bucket, 0)
        low, high = 2**bucket, 2 ** (bucket + 1) - 1
        label = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        yield BarRow(label, count, share(count, total), 100.0 * count / most)


def _bars(counts: dict[str, int]) -> tuple[BarRow, ...]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = ranked[:SHOWN], ranked[SHOWN:]
    if rest:
        shown.append((f"{whole(len(rest))} more", sum(count for _, count in rest)))
    total, most = sum(counts.values()), max((count for _, count in shown), default=0)
    return tuple(
        BarRow(label, count, share(count, total), 100.0 * count / max(1, most))
        for label, count in shown
    )


def _samples(run: Run) -> Iterator[Document]:
    """Documents that the filters kept: the first by a hash of their ids, as evenly by source as can be."""
    dataset = run.get("documents")
    if dataset is None:
        return
    filled = [i for i, shard in enumerate(dataset.shards()) if shard.rows]
    if not filled:
        return
    spread = sorted({filled[int(i)] for i in np.linspace(0, len(filled) - 1, _GROUPS)})
    by_source: dict[str, list[dict[str, Any]]] = {}
    for shard in spread:
        table = dataset.read_row_group(shard, 0, None)
        run.tally.add("documents", table)
        order = np.argsort(uniform(0, 0, table["doc_id"], _SALT), kind="stable")
        seen: Counter[str] = Counter()
        sources = table["source"].to_pylist()
        picked: list[int] = []
        for row in order.tolist():
            seen[sources[row]] += 1
            if seen[sources[row]] <= SAMPLES and len(picked) < 10 * SAMPLES:
                picked.append(row)
        for row in table.take(pa.array(picked, pa.int64())).to_pylist():
            by_source.setdefault(row["source"], []).append(row)
    given = 0
    while given < SAMPLES and any(by_source.values()):
        for source in sorted(by_source):
            if by_source[source] and given < SAMPLES:
                given += 1
                yield _document(by_source[source].pop(0))


def _document(row: dict[str, Any]) -> Document:
    return Document(
        row["doc_id"].hex(),
        row["split"],
        row["source"],
        row["language"] or "",
        len(row["text"].encode()),
        row["text"][:_CUT],
    )


def _duplicates(run: Run) -> tuple[tuple[Duplicate, ...], str]:
    dataset = run.get("duplicates")
    if dataset is None:
        return (), ""
    documents = run.get("documents")
    total = documents.manifest.rows if documents is not None else 0
    gone = dataset.manifest.rows
    lede = f"{whole(gone)} documents are duplicates of others"
    lede += f", {percent(share(gone, total))} of those that the filters kept." if total else "."
    counts = dataset.manifest.stats
    if counts:
        kinds = ", ".join(f"{whole(count)} {how}" for how, count in sorted(counts.items()))
        lede += f" By kind: {kinds}."
    rows: list[dict[str, Any]] = []
    for how in ("exact", "near"):
        for table in run.tables("duplicates", ["doc_id", "kept", "how"]):
            some = table.filter(pc.equal(table["how"], how)).slice(0, EXAMPLES // 2)
            rows += some.to_pylist()
            if some.num_rows:
                break
    found = _texts_of(run, [row[name] for row in rows for name in ("doc_id", "kept")])
    return tuple(
        Duplicate(
            row["how"],
            row["doc_id"].hex(),
            found.get(row["doc_id"], ""),
            row["kept"].hex(),
            found.get(row["kept"], ""),
        )
        for row in rows
    ), lede


def _shared(run: Run) -> tuple[tuple[Shared, ...], str]:
    dataset = run.get("contamination")
    if dataset is None:
        return (), "" if run.get("tokens") is None else (
            "No evaluation set was named (decontaminate=): the documents may hold evaluation texts."
        )
    stats = dataset.manifest.stats
    rule = dataset.manifest.config.get("rule", {})
    sets = ", ".join(
        f"{whole(n)} with {name}" for name, n in sorted(stats.get("evaluations", {}).items())
    )
    count = stats.get("documents", 0)
    who = "1 document shares" if count == 1 else f"{whole(count)} documents share"
    lede = (
        f"{who} {rule.get('words', 'n')} words in a row with an evaluation set"
        f"{f' ({sets})' if sets else ''}."
    )
    found: list[Shared] = []
    for table in run.tables("contamination", ["doc_id", "evaluation", "ngram"]):
        for row in table.slice(0, EXAMPLES - len(found)).to_pylist():
            found.append(Shared(row["doc_id"].hex(), row["evaluation"], row["ngram"]))
        if len(found) == EXAMPLES:
            break
    return tuple(found), lede


def _texts_of(run: Run, ids: list[bytes]) -> dict[bytes, str]:
    """Beginnings of documents by id; the ids of `documents` are read until all are found."""
    dataset = run.get("documents")
    left, found = set(ids), dict[bytes, str]()
    if dataset is None:
        return {}
    for shard in range(len(dataset.shards())):
        first = 0
        for table in run.tables("documents", ["doc_id"], shard=shard):
            if not left:
                return found
            hit = pc.is_in(table["doc_id"], value_set=pa.array(sorted(left), ID))
            at = pc.indices_nonzero(hit).to_numpy().astype(np.int64)
            if len(at):
                rows = run.take("documents", shard, at + first, ["doc_id", "text"])
                for row in rows.to_pylist():
                    found[row["doc_id"]] = row["text"][:_CUT]
                    left.discard(row["doc_id"])
            first += table.num_rows
    return found
