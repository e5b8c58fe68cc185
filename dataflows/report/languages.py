"""Languages before and after: identified, matched and curated texts by metadata key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.page.names import language_name
from curation.page.numbers import percent, share, whole
from dataflows.report.model import LanguageRow, Languages
from dataflows.report.source import Run


def languages(run: Run) -> Languages | None:
    """The section's facts from `stats` of matches, matched and curated; None before matching.

    "Before" is the share among texts whose language has metadata; texts of other languages are
    counted apart, first. "After" is the share in the curated set or, before the draw, in the
    matched one.
    """
    stats: Mapping[str, Any] = run.stats.get("matches", {})
    found = stats.get("languages")
    if not found:
        return None
    covered = _covered(run, found)
    curated = _texts(run, "curated")
    matched_total = sum(int(found[key]["matched"]) for key in covered)
    curated_total = sum(curated.values()) if curated is not None else None
    before_total = sum(int(found[key]["texts"]) for key in covered)
    after_total = matched_total if curated_total is None else curated_total
    rows = []
    for key in covered:
        texts, matched = int(found[key]["texts"]), int(found[key]["matched"])
        after = matched if curated is None else curated.get(key, 0)
        rows.append(
            LanguageRow(
                key,
                texts,
                matched,
                None if curated is None else after,
                share(texts, before_total) or 0.0,
                share(after, after_total),
            )
        )
    rows.sort(key=lambda row: (-row.identified, row.key))
    identified = {label: int(n["texts"]) for label, n in stats.get("identified", {}).items()}
    without = sorted(
        ((key, int(n["texts"])) for key, n in found.items() if key not in covered and n["texts"]),
        key=lambda item: (-item[1], item[0]),
    )
    without_total = sum(count for _, count in without)
    widest = max([r.share_before for r in rows] + [r.share_after or 0.0 for r in rows] + [1e-9])
    after_name = "matched" if curated is None else "curated"
    return Languages(
        rows=tuple(rows),
        without=tuple(without),
        without_total=without_total,
        identified_total=sum(identified.values()) or before_total + without_total,
        labels=len(identified),
        matched_total=matched_total,
        curated_total=curated_total,
        after_name=after_name,
        widest=widest,
        lede=_lede(rows, after_name, identified),
    )


def english(found: Languages | None) -> LanguageRow | None:
    """The row of English, if there is one."""
    rows = found.rows if found else ()
    return next((row for row in rows if row.key == "en"), None)


def _covered(run: Run, found: Mapping[str, Any]) -> list[str]:
    """Keys that have metadata: those with an automaton or, without it here, with a match."""
    automata = {
        key
        for table in run.tables("automata", ["metadata"])
        for key in table["metadata"].to_pylist()
    }
    if automata:
        return [key for key in found if key in automata]
    return [key for key, n in found.items() if n["matched"]]


def _texts(run: Run, name: str) -> dict[str, int] | None:
    stats = run.stats.get(name, {}).get("languages")
    return None if stats is None else {key: int(n["texts"]) for key, n in stats.items()}


def _lede(rows: list[LanguageRow], after: str, identified: Mapping[str, int]) -> str:
    text = ""
    if identified:
        text = (
            f"{whole(len(identified))} languages were identified in the pool's "
            f"{whole(sum(identified.values()))} texts, {len(rows)} of them have metadata. "
        )
    row = next((row for row in rows if row.key == "en"), None)
    if row is not None and row.share_after is not None:
        turn = "to" if abs(row.share_after - row.share_before) >= 0.0005 else "and stays at"
        text += (
            f"English goes from {percent(row.share_before)} of the texts {turn} "
            f"{percent(row.share_after)} of the {after} set. "
        )
    # Where some 20 texts are to be expected, a changed share is more than chance.
    total = sum((row.matched if row.curated is None else row.curated) or 0 for row in rows)
    moved = [
        (row.share_after / row.share_before, row)
        for row in rows
        if row.share_after and row.key != "en" and row.share_before * total >= 20
    ]
    if len(moved) >= 2:
        most, least = max(moved, key=lambda m: m[0]), min(moved, key=lambda m: m[0])
        text += (
            f"The share of {language_name(most[1].key)} changes most upwards (× {most[0]:.2f}), "
            f"that of {language_name(least[1].key)} most downwards (× {least[0]:.2f})."
        )
    return text.strip()
