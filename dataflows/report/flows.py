"""The rejection funnel: every stage's ledger, how stages join, and one fall to the head."""

from __future__ import annotations

from curation.page.numbers import percent, share, whole
from dataflows.report.model import Alert, Change, FallRow, Flow, Funnel
from dataflows.report.source import Run
from schemas.errors import IntegrityError
from schemas.ledger import KINDS, UNITS, Ledger
from schemas.reasons import REASONS
from schemas.table_schemas import SCHEMAS

_LOSSES = ("rejected", "merged", "sampled_out")
# Rows of these units pass from stage to stage, so what one lets out the next must take in.
_PASSED_ON = ("record", "text")


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


def funnel(run: Run, found: tuple[Flow, ...]) -> Funnel | None:
    """The stages that the head's rows came through, as one fall; None without a ledger."""
    unit = SCHEMAS[run.manifest.schema["name"]].unit
    by_stage = {flow.stage: flow for flow in found if flow.unit == unit}
    chain: list[Flow] = []
    name: str | None = run.head
    while name in by_stage:
        flow = by_stage[name]
        chain.insert(0, flow)
        name = flow.joins if flow.joined else None
    if not chain:
        return None
    start = chain[0].available
    left = peak = chain[0].entered
    steps: list[tuple[Flow, Change, int]] = []
    for flow in chain:
        for change in flow.changes:
            left += change.count if change.kind == "created" else -change.count
            peak = max(peak, left)
            steps.append((flow, change, left))
    scale = max(peak, 1)
    rows = []
    if chain[0].entered:
        rows.append(
            FallRow(
                f"{unit}s that {chain[0].stage} read",
                "from the input datasets",
                chain[0].stage,
                "before",
                "",
                chain[0].entered,
                chain[0].entered,
                share(chain[0].entered, start),
                0.0,
                100.0 * chain[0].entered / scale,
            )
        )
    for flow, change, after in steps:
        made = change.kind == "created"
        rows.append(
            FallRow(
                change.reason.replace("_", " "),
                change.explanation,
                flow.stage,
                "before" if made else change.kind,
                "+" if made else "−",
                change.count,
                after,
                share(change.count, start),
                100.0 * (after - change.count if made else after) / scale,
                100.0 * change.count / scale,
            )
        )
    out = chain[-1].out
    rows.append(
        FallRow(
            "in the dataset",
            "what a reader gets",
            run.head,
            "out",
            "=",
            out,
            out,
            share(out, start),
            0.0,
            100.0 * out / scale,
            total=True,
        )
    )
    good = left == out == run.manifest.totals["rows"] and not any(f.balance for f in chain)
    return Funnel(unit, tuple(rows), _lede(chain, unit, start), _verdict(chain, left, run), good)


def _lede(chain: list[Flow], unit: str, start: int) -> str:
    losses = [
        (change.count, change)
        for flow in chain
        for change in flow.changes
        if change.kind in _LOSSES
    ]
    out = chain[-1].out
    text = f"Of {whole(start)} {unit}s, {whole(out)} ({percent(share(out, start))}) came through."
    if losses:
        count, change = max(losses, key=lambda loss: loss[0])
        text += f" The largest loss, {percent(share(count, start))}: {change.explanation}."
    return text


def _verdict(chain: list[Flow], left: int, run: Run) -> str:
    terms = [f"{whole(chain[0].entered)} in"] if chain[0].entered else []
    for flow in chain:
        for change in flow.changes:
            sign = "+" if change.kind == "created" else "−"
            terms.append(f"{sign} {whole(change.count)}")
    sum_text = " ".join(terms).removeprefix("+ ")
    rows = run.manifest.totals["rows"]
    sign = "✓" if left == rows else "✗"
    equal = "=" if left == rows else "≠"
    return f"{sign} {sum_text} = {whole(left)} {equal} {whole(rows)} rows in {run.head}"
