"""What fetching lost: hosts that refused most, and the tail of each language before and after."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import pyarrow as pa

from curation.page.names import language_name
from curation.page.numbers import percent, share, size, whole
from dataflows.report.source import Run

COUNTED_ROWS = 2_000_000
"""At most so many refusals are read (two columns of the dead letters); more are not looked at."""

HOSTS = 12
_DATASET = "fetched"


@dataclass(frozen=True)
class HostRow:
    """One host: its refusals, and the most frequent reasons among them, (reason, count)."""

    host: str
    refused: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class TailRow:
    """Matches of one language before and after, and the share of them on what is its tail after."""

    key: str
    before: int
    after: int
    kept: float | None
    tail_before: float
    tail_after: float


@dataclass(frozen=True)
class Fetching:
    """The section. `note` says how many refusals the hosts were counted in, if not all."""

    lede: str
    hosts: tuple[HostRow, ...]
    note: str
    tails: tuple[TailRow, ...]


def fetching(run: Run) -> Fetching | None:
    """The section's facts; None for a run that neither fetched nor was given what was fetched."""
    dataset = run.get(_DATASET)
    tails = _tails(run)
    if dataset is None and not tails:
        return None
    if dataset is None:
        return Fetching(_tail_lede(tails), (), "", tails)
    ledger = dataset.manifest.ledger
    asked, came = ledger.count("image", "in"), ledger.count("image", "out")
    sent = int(dataset.manifest.stats.get("bytes", 0))
    lede = f"Of {whole(asked)} URLs, {whole(came)} pictures came ({percent(share(came, asked))})"
    lede += f", {size(sent)} as stored, {size(sent / came)} each." if came else "."
    hosts, note = _hosts(run)
    return Fetching(lede, hosts, note, tails)


def _hosts(run: Run) -> tuple[tuple[HostRow, ...], str]:
    """The hosts with the most refusals, and what was not counted."""
    letters = run.dead.get(f"{_DATASET}.dead_letters")
    if letters is None:
        return (), ""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seen = 0
    for table in run.tables(f"{_DATASET}.dead_letters", ["source", "reason"]):
        if seen >= COUNTED_ROWS:
            break
        seen += table.num_rows
        grouped = pa.TableGroupBy(table, ["source", "reason"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            counts[row["source"]][row["reason"]] += row["count_all"]
    ranked = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))[:HOSTS]
    rows = tuple(
        HostRow(host, reasons.total(), tuple(sorted(reasons.items(), key=lambda r: (-r[1], r[0]))))
        for host, reasons in ranked
    )
    total = letters.manifest.rows
    note = (
        "" if seen == total else f"Counted in the first {whole(seen)} of {whole(total)} refusals."
    )
    return rows, note


def _tails(run: Run) -> tuple[TailRow, ...]:
    languages = run.stats.get("balance", {}).get("languages", {})
    rows = []
    for key, facts in languages.items():
        losses = facts.get("fetching")
        if losses is None:
            continue
        before, after = losses["before"], losses["after"]
        kept = share(after["matches"], before["matches"])
        rows.append(
            TailRow(key, before["matches"], after["matches"], kept, before["tail"], after["tail"])
        )
    return tuple(sorted(rows, key=lambda row: (-row.before, row.key)))


def _tail_lede(tails: tuple[TailRow, ...]) -> str:
    before, after = (sum(getattr(row, name) for row in tails) for name in ("before", "after"))
    text = (
        f"Only valid images count here: {percent(share(after, before))} of {whole(before)} matches have "
        "one. "
    )
    worst = min(tails, key=lambda row: row.tail_after - row.tail_before)
    if worst.tail_after < worst.tail_before:
        text += (
            f"The tail lost more than the head most of all in {language_name(worst.key)}: what is its tail "
            f"now held {percent(worst.tail_before)} of the matches before, and holds "
            f"{percent(worst.tail_after)}."
        )
    else:
        text += "In no language did the tail lose more than the head."
    return text
