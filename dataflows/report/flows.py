"""The ledger of every stage, and how stages join."""

from __future__ import annotations

from curation.page.numbers import whole
from dataflows.report.model import Alert, Change, Flow
from dataflows.report.source import Run
from schemas.errors import IntegrityError
from schemas.ledger import KINDS, UNITS, Ledger
from schemas.reasons import REASONS
from schemas.table_schemas import SCHEMAS

# Rows of these units pass from stage to stage, so what one lets out the next must take in.
_PASSED_ON = ("record", "text", "document")


def flows(run: Run) -> tuple[Flow, ...]:
    """One flow for each stage and unit, parents first; every balance is checked again here."""
    found = []
    for name, dataset in run.datasets.items():
        manifest = dataset.manifest
        ledger = Ledger.from_json(manifest.counts)
        try:
            ledger.check()
            balance = ""
        except IntegrityError as error:
            balance = str(error)
        units = {row["unit"] for row in manifest.counts}
        for unit in (u for u in UNITS if u in units):
            found.append(_flow(run, name, unit, ledger, balance))
    return tuple(found)


def _flow(run: Run, name: str, unit: str, ledger: Ledger, balance: str) -> Flow:
    rows = [row for row in ledger.rows() if row["unit"] == unit]
    changes = [
        Change(row["kind"], row["reason"], REASONS[row["reason"]], row["count"])
        for row in rows
        if row["kind"] not in ("in", "out") and row["count"]
    ]
    changes.sort(key=lambda change: (KINDS.index(change.kind), -change.count, change.reason))
    sums = bool(ledger.id_sum(unit, "out")) and bool(
        ledger.id_sum(unit, "in") or ledger.id_sum(unit, "created")
    )
    entered = ledger.count(unit, "in")
    joins, joined = _join(run, name, unit, entered) if entered else (None, True)
    out = ledger.count(unit, "out")
    return Flow(name, unit, entered, out, tuple(changes), balance, sums, joins, joined)


def _join(run: Run, name: str, unit: str, entered: int) -> tuple[str | None, bool]:
    """The parent (or parents together) whose output these rows are; whether the counts agree."""
    outs: dict[str, int] = {}
    limit = run.datasets[name].manifest.config.get("limit")
    for parent in run.datasets[name].manifest.parents:
        dataset = run.get(parent["name"])
        if dataset is not None and dataset.manifest.digest == parent["digest"]:
            out = Ledger.from_json(dataset.manifest.counts).count(unit, "out")
            if not out and SCHEMAS[dataset.manifest.schema["name"]].unit == unit:
                out = dataset.manifest.totals["rows"]
            if out:
                outs[parent["name"]] = out if limit is None else min(out, limit)
    for parent_name, out in outs.items():
        if out == entered:
            return parent_name, True
    if len(outs) > 1 and sum(outs.values()) == entered:
        return " + ".join(outs), True
    if outs and unit in _PASSED_ON:
        return next(iter(outs)), False
    return None, True


def faults(found: tuple[Flow, ...]) -> list[Alert]:
    """What does not add up, as warnings that the report itself raises."""
    lines = []
    for flow in found:
        if flow.balance:
            lines.append(Alert(flow.stage, flow.balance, found=True))
        if not flow.joined:
            lines.append(
                Alert(
                    flow.stage,
                    f"{whole(flow.entered)} {flow.unit}s went in, which is not what {flow.joins} "
                    "let out: the datasets here are not of one run, or one was limited",
                    found=True,
                )
            )
    return lines
