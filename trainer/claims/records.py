"""Committed records of claims, and the tables of the README that are rendered from them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas import records
from schemas.errors import CheckFailed, InputError
from trainer.claims import CLAIMS, claim

FOLDER = Path(__file__).resolve().parent / "records"
ROOT = FOLDER.parents[2]
README = ROOT / "README.md"


def write(name: str, words: Sequence[str], values: dict[str, Any], seconds: float) -> Path:
    """Write the record of a finished claim, run with ``words``; it is to be committed."""
    return records.write(
        FOLDER,
        name,
        command=shlex.join(["trainer", "claims", "run", name, *words]),
        seeds=list(range(values["settings"]["seeds"])),
        values=values,
        seconds=seconds,
        sources=claim(name).SOURCES,
        root=ROOT,
    )


def load(name: str) -> records.Record:
    """Return a claim's record. InputError if it was never run."""
    try:
        return records.load(FOLDER, name)
    except FileNotFoundError:
        raise InputError(
            f"{name}: no record in {FOLDER}; run `trainer claims run {name}`"
        ) from None


def stale(name: str) -> str | None:
    """Say why the record no longer speaks of this checkout; None if it does."""
    return records.stale(load(name), ROOT)


def section(name: str) -> list[str]:
    """A claim's part of the README: title, table, verdicts, and where they come from."""
    record, module = load(name), claim(name)
    values = record.values
    return [
        f"**{module.TITLE}.** Metric, fixed before the run: {values['metric']}. "
        f"{module.cost(module.Settings(**values['settings']))}; "
        f"{record.seconds / 60:,.0f} minutes of work on one core, commit `{record.commit[:12]}`.",
        "",
        *module.table(values),
    ]


def render(text: str) -> str:
    """The README's text with every claim's part between its markers renewed.

    CheckFailed if a recorded claim has no markers.
    """
    for name in CLAIMS:
        if not (FOLDER / f"{name}.json").exists():
            continue
        start, end = f"<!-- claim {name} -->", f"<!-- end of claim {name} -->"
        head, found, rest = text.partition(start)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise CheckFailed(f"README.md has no `{start}` and `{end}` to put the table between")
        text = "\n".join([f"{head}{start}", "", *section(name), "", f"{end}{tail}"])
    return text
