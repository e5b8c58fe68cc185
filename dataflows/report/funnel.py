"""The rejection funnel: what came into ingest, then one fall to the head; both add up."""

from __future__ import annotations

from dataclasses import replace

from curation.page.numbers import percent, share, whole
from dataflows.report.model import Change, FallRow, Flow, Funnel
from dataflows.report.source import Run
from dataflows.report.stopped import flow as stopped
from schemas.table_schemas import SCHEMAS

_LOSSES = ("rejected", "merged", "sampled_out")
# Names under which runs take in the records of an ingest.
_RECORDS = ("records", "urls-")


def funnel(run: Run, found: tuple[Flow, ...]) -> Funnel | None:
    """The stages that the head's rows came through, as one fall; None without a ledger."""
    chain = _chain(run, found)
    if not chain:
        return None
    unit, head, rows_out = chain[0].unit, run.head, run.manifest.totals["rows"]
    start = run.get(chain[0].stage)
    source = "the input datasets" if start is None or start.manifest.parents else "the input files"
    came = "came in" if f"{unit}s" == chain[0].stage else f"{chain[0].stage} read"
    first = (f"{unit}s that {came}", f"from {source}")
    last, what = ("in the dataset", "what a reader gets", head), f"rows in {head}"
    if halt := stopped(run):
        chain, rows_out = [*chain, *halt], halt[-1].out
        last = ("without shared text", "what on_contamination=drop goes on with", halt[-1].stage)
        what = f"{unit}s that share no text with evaluation sets; the run stopped here"
    rows, left = _fall(chain, first, last)
    good = left == chain[-1].out == rows_out and not any(f.balance for f in chain)
    verdict = _verdict(chain, left, rows_out, what)
    return Funnel(unit, rows, _lede(chain), verdict, good)


def before(run: Run, found: tuple[Flow, ...]) -> tuple[Funnel | None, str]:
    """What came into the ingests whose records :func:`funnel` begins with, down to what its first
    stage made rows of; and a line about ingests that cannot be read.

    (None, "") where no ingest came before, or the head is an ingest's own.
    """
    chain = _chain(run, found)
    start = run.get(chain[0].stage) if chain else None
    if start is None:
        return None, ""
    parents = [p for p in start.manifest.parents if p["name"].startswith(_RECORDS)]
    absent = []
    for parent in parents:
        dataset = run.get(parent["name"])
        if dataset is None or dataset.manifest.digest != parent["digest"]:
            absent.append(parent["name"])
    if absent:
        words = " ".join(f"--with {name}=LOCATION" for name in absent)
        return None, (
            f"What was lost before, as at ingest, is not shown: {', '.join(absent)} "
            f"{'lies' if len(absent) == 1 else 'lie'} outside of this output. Add {words} to "
            "`dataflows report` to begin there."
        )
    by_place = {(flow.stage, flow.unit): flow for flow in found}
    tops = [by_place.get((parent["name"], "record")) for parent in parents]
    ingests = [flow for flow in tops if flow is not None and flow.entered]
    if not ingests or len(ingests) < len(parents):
        return None, ""  # records that no ingest made, or datasets further down
    return _before(run, ingests, chain[0], by_place.get((chain[0].stage, "record"))), ""


def _before(run: Run, ingests: list[Flow], first: Flow, records: Flow | None) -> Funnel:
    """The fall of the records, from files to the rows that the stage `first` begins with."""
    # A stage that counts records itself rejects some; one that does not takes each as a row.
    last = records or replace(first, unit="record", out=first.entered, changes=())
    beyond = sum(flow.out for flow in ingests) - last.entered
    if beyond > 0 and run.datasets[first.stage].manifest.config.get("limit") is not None:
        cut = Change("sampled_out", "not_read", "beyond limit=, which this run was given", beyond)
        last = replace(last, changes=(cut, *last.changes))
    chain = [*ingests, last]
    into = ", ".join(flow.stage for flow in ingests)
    rows, left = _fall(
        chain,
        ("records that came in", f"as found in the input files of {into}"),
        (f"records that {first.stage} took", "what the next table begins with", first.stage),
        read=len(ingests),
    )
    good = left == last.out and not any(flow.balance for flow in chain)
    verdict = _verdict(chain, left, last.out, f"records in {first.stage}", read=len(ingests))
    return Funnel("record", rows, _lede(chain, read=len(ingests)), verdict, good)


def _chain(run: Run, found: tuple[Flow, ...]) -> list[Flow]:
    """The head's flow and those that it joins, the first stage first."""
    unit = SCHEMAS[run.manifest.schema["name"]].unit
    by_stage = {flow.stage: flow for flow in found if flow.unit == unit}
    chain: list[Flow] = []
    name: str | None = run.head
    while name in by_stage:
        flow = by_stage[name]
        chain.insert(0, flow)
        name = flow.joins if flow.joined else None
    return chain


def _fall(
    chain: list[Flow], first: tuple[str, str], last: tuple[str, str, str], *, read: int = 1
) -> tuple[tuple[FallRow, ...], int]:
    """The rows, and what is left after all changes. The first `read` flows take in from outside.

    `first` is label and explanation of what came in, `last` these and the stage of what is there.
    """
    entered, start = _entered(chain, read), _start(chain, read)
    left = peak = entered
    steps: list[tuple[Flow, Change, int]] = []
    for flow in chain:
        for change in flow.changes:
            left += change.count if change.kind == "created" else -change.count
            peak = max(peak, left)
            steps.append((flow, change, left))
    scale = max(peak, 1)
    rows = []
    if entered:
        stage = chain[0].stage
        part, width = share(entered, start), 100.0 * entered / scale
        rows.append(FallRow(*first, stage, "before", "", entered, entered, part, 0.0, width))
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
    part, width = share(out, start), 100.0 * out / scale
    rows.append(FallRow(*last, "out", "=", out, out, part, 0.0, width, total=True))
    return tuple(rows), left


def _entered(chain: list[Flow], read: int) -> int:
    return sum(flow.entered for flow in chain[:read])


def _start(chain: list[Flow], read: int) -> int:
    """What shares are of: what came in, and what the first stage made."""
    return _entered(chain, read) + chain[0].created


def _lede(chain: list[Flow], read: int = 1) -> str:
    unit, start = chain[0].unit, _start(chain, read)
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


def _verdict(chain: list[Flow], left: int, rows: int, what: str, read: int = 1) -> str:
    terms = [f"{whole(_entered(chain, read))} in"] if _entered(chain, read) else []
    for flow in chain:
        for change in flow.changes:
            sign = "+" if change.kind == "created" else "−"
            terms.append(f"{sign} {whole(change.count)}")
    sum_text = " ".join(terms).removeprefix("+ ")
    sign = "✓" if left == rows else "✗"
    equal = "=" if left == rows else "≠"
    return f"{sign} {sum_text} = {whole(left)} {equal} {whole(rows)} {what}"
