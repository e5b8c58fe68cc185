"""What the stages `pool` and `matches` do with their dead letters when these are replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.evaluation_sets import EvaluationSets
from curation.guard import guard
from curation.id_sets import order_by
from curation.metaclip2.dedup import deduplicate
from curation.metaclip2.explode import clean_texts, explode
from dataflows.engine.replay import Replayed, letter_rows
from dataflows.pipelines.metaclip2.pool import evaluation_sets
from dataflows.transforms.reading import Ref
from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError, UsageError
from schemas.ids import id_sum, pair_ids
from schemas.ledger import Ledger
from schemas.step import Outcome, merge_stats
from schemas.table_schemas import DEAD_LETTERS

_FAILED = "step_failed"
_POOL_SETTINGS = ("max_text_bytes", "min_score")


def _known(settings: Mapping[str, Any], names: tuple[str, ...], stage: str) -> None:
    for name in settings:
        if name not in names:
            known = ", ".join(names) or "none"
            raise UsageError(f"{name}: not a setting of replaying {stage}; known: {known}")


def pool(old: Dataset, letters: pa.Table, settings: Mapping[str, Any]) -> Replayed:
    """Texts that were refused, exploded with today's limits and deduplicated with the rest."""
    _known(settings, _POOL_SETTINGS, "pool")
    config = {**old.manifest.config, **old.manifest.config.get("replay", {}), **settings}
    rows = letter_rows(letters)
    evaluation = _evaluation(old)
    outcomes, before = [], Ledger()
    for number, letter in enumerate(letters.drop_columns(["row"]).to_pylist()):
        source, shard = (int(part) for part in letter["source"].split("/"))
        row = rows.slice(number, 1)
        outcome = guard(
            explode,
            row,
            source,
            shard,
            letter["position"],
            max_text_bytes=config["max_text_bytes"],
            min_score=config["min_score"],
            evaluation=evaluation,
            stage="pool",
            unit="record",
            id_column="image_id",
            source=letter["source"],
        )
        # A record that left letters for single texts was counted in the statistics then.
        kept = ("records",) if letter["reason"] == _FAILED else ()
        outcome.stats = {name: outcome.stats[name] for name in kept}
        outcomes.append(outcome)
        before.merge(_counted_before(row, letter["reason"]))
    return Replayed(_joined(outcomes), before, deduplicate)


def _counted_before(row: pa.Table, reason: str) -> Ledger:
    """How the pool's ledger counted the record of a letter: whole, or with its one refused text."""
    ledger = Ledger()
    image = id_sum(row["image_id"])
    ledger.add("record", "in", "", 1, image)
    if reason == _FAILED:
        ledger.add("record", "rejected", reason, 1, image)
        return ledger
    ledger.add("record", "out", "", 1, image)
    texts = pc.struct_field(row["texts"].combine_chunks().flatten(), "text")
    pair = id_sum(pair_ids(row["image_id"], clean_texts(texts)))
    ledger.add("text", "created", "exploded", 1, pair)
    ledger.add("text", "rejected", reason, 1, pair)
    return ledger


def _evaluation(old: Dataset) -> EvaluationSets | None:
    """The evaluation sets that the pool was cleaned of. Raises InputError if they are gone."""
    wanted = {p["name"]: p["digest"] for p in old.manifest.parents}.get("evaluation")
    if wanted is None:
        return None
    place = old.manifest.run.get("inputs", {}).get("evaluation")
    if place is None or open_dataset(place).manifest.digest != wanted:
        raise InputError(
            f"the pool was cleaned of evaluation sets {wanted[:12]}, which are not at {place} any more: "
            "put them back, or run the recipe again with evaluation="
        )
    return evaluation_sets(Ref(place, wanted))


def matches(old: Dataset, letters: pa.Table, settings: Mapping[str, Any]) -> Replayed:
    """Texts on which matching failed, matched anew and put in their place."""
    from curation.metaclip2.language import Identifier
    from curation.metaclip2.match import match
    from dataflows.pipelines.metaclip2.matches import automata_of

    _known(settings, (), "matches")
    automata = automata_of(Ref.of(open_dataset(old.storage.sibling("automata"))))
    rows = letter_rows(letters)
    outcome = guard(
        match,
        rows,
        automata,
        Identifier(),
        isolation=old.manifest.config["isolation"],
        stage="matches",
        unit="text",
        id_column="pair_id",
        source="replay",
    )
    before = Ledger()
    ids = id_sum(rows["pair_id"])
    before.add("text", "in", "", rows.num_rows, ids)
    before.add("text", "rejected", _FAILED, rows.num_rows, ids)
    return Replayed(outcome, before, _sorted)


def _sorted(table: pa.Table) -> Outcome:
    order = order_by(table["image_id"], table["pair_id"])
    return Outcome(table.take(pa.array(order)), Ledger())


def _joined(outcomes: list[Outcome]) -> Outcome:
    ledger = Ledger()
    stats: dict[str, Any] = {}
    dead = [o.dead for o in outcomes if o.dead is not None]
    for outcome in outcomes:
        ledger.merge(outcome.ledger)
        stats = merge_stats(stats, outcome.stats)
    return Outcome(
        pa.concat_tables([o.table for o in outcomes]),
        ledger,
        pa.concat_tables(dead) if dead else DEAD_LETTERS.empty(),
        stats,
    )
