"""What the stage `fetched` does with its refusals when they are replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.fetch import FetchOptions
from curation.id_sets import order_by, run_starts
from dataflows.engine.replay import Replayed, letter_rows
from dataflows.pipelines.fetch.answers import ask
from dataflows.pipelines.fetch.packing import MOST
from schemas.dataset import Dataset
from schemas.errors import UsageError
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome, merge_stats
from schemas.table_schemas import FETCH_UNITS, FETCHED

PASSING = (
    *("fetch_dns", "fetch_connect", "fetch_timeout", "fetch_truncated"),
    *("fetch_http_5xx", "fetch_rate_limited"),
)
"""Reasons that may have gone by themselves."""

LIFTED = {
    "max_bytes": ("fetch_too_large",),
    "max_pixels": ("image_too_large",),
    "max_redirects": ("fetch_redirects",),
    "robots": ("fetch_robots",),
    "opt_out": ("fetch_opt_out",),
    "tdm_reservation": ("fetch_opt_out",),
    "allow_private": ("fetch_private_address",),
}
"""Setting of a replay -> reasons that it may lift."""

_RATES = (
    *("contact", "timeout", "deadline", "requests_per_second", "connections", "concurrency"),
    *("retries", "max_retry_after", "decoders"),
)


def again(old: Dataset, letters: pa.Table, settings: Mapping[str, Any]) -> Replayed:
    """Asks again for what may come now: refusals of passing reasons, and of those that the settings
    may lift. What comes goes to shards of its own; all other letters stay as they are.

    One process fetches here, and holds what comes in memory: for many refusals, run the recipe anew.
    """
    options = _options(old, settings)
    reasons = [*PASSING, *(reason for name in settings for reason in LIFTED.get(name, ()))]
    hopeful = pc.is_in(letters["reason"], value_set=pa.array(reasons, pa.string()))
    rest = letters.filter(pc.invert(hopeful))
    letters = letters.filter(hopeful)
    if not letters.num_rows:
        return Replayed(Outcome(FETCHED.empty(), Ledger(), rest), Ledger())
    rows = letter_rows(letters)
    before = Ledger()
    for reason in reasons:
        ids = rows.filter(pc.equal(letters["reason"].combine_chunks(), reason))["image_id"]
        before.add("image", "in", "", len(ids), id_sum(ids))
        before.add("image", "rejected", reason, len(ids), id_sum(ids))
    rows = rows.select(FETCH_UNITS.arrow.names).sort_by("host")
    parts = [part for some in _slices(rows) for part in ask(some, options, 1)]
    return Replayed(_joined(parts, rest), before)


def _slices(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows, at most as many as a unit's at a time, and each image id once: an image of two hosts
    was asked for at both."""
    order = order_by(rows["image_id"])
    starts = run_starts(rows["image_id"].take(pa.array(order)))
    before = np.empty(len(order), np.int64)
    before[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    for number in range(int(before.max(initial=-1)) + 1):
        some = rows.filter(pa.array(before == number))
        for start in range(0, some.num_rows, MOST):
            yield some.slice(start, MOST)


def _options(old: Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the dataset was fetched with, and the settings given now. Raises UsageError."""
    known = (*_RATES, *LIFTED)
    for name in settings:
        if name not in known:
            raise UsageError(
                f"{name}: not a setting of replaying fetched; known: {', '.join(known)}"
            )
    manifest = old.manifest
    found = {
        **manifest.config["options"],
        **manifest.run.get("runtime", {}),
        **manifest.config.get("replay", {}),
        **settings,
        "units_at_once": 1,
    }
    for name in ("opt_out", "allow_private"):
        if isinstance(found.get(name), str):
            found[name] = [part for part in found[name].split(",") if part]
    return dict(vars(FetchOptions.from_json(json.dumps(found, default=str))))


def _joined(parts: list[Outcome], rest: pa.Table) -> Outcome:
    ledger = Ledger()
    stats: dict[str, Any] = {}
    for part in parts:
        ledger.merge(part.ledger)
        stats = merge_stats(stats, part.stats)
    table = pa.concat_tables([part.table for part in parts])
    table = table.sort_by([(name, "ascending") for name in FETCHED.sort_by])
    dead = pa.concat_tables([rest, *(p.dead for p in parts if p.dead is not None)])
    return Outcome(table, ledger, dead, stats)
