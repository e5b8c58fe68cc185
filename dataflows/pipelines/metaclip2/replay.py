"""What the stages `pool` and `matches` do with their dead letters when these are replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curation.evaluation_sets import EvaluationSets
from curation.guard import guard
from curation.id_sets import order_by
from curation.metaclip2.dedup import deduplicate
from curation.metaclip2.explode import explode
from dataflows.engine.replay import Replayed, letter_rows
from dataflows.pipelines.metaclip2.pool import evaluation_sets
from dataflows.transforms.reading import Ref
from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError, UsageError
from schemas.ledger import Ledger
from schemas.step import Outcome, merge_stats
from schemas.table_schemas import DEAD_LETTERS

_POOL_SETTINGS = ("max_text_bytes", "min_score")


def _known(settings: Mapping[str, Any], names: tuple[str, ...], stage: str) -> None:
    for name in settings:
        if name not in names:
            known = ", ".join(names) or "none"
            raise UsageError(f"{name}: not a setting of replaying {stage}; known: {known}")


def pool(old: Dataset, letters: pa.Table, settings: Mapping[str, Any]) -> Replayed:
    """Texts that were refused, exploded with today's limits and deduplicated with the rest."""
    _known(settings, _POOL_SETTINGS, "pool")
    config = {**old.manifest.config, **settings}
    rows = letter_rows(letters)
    evaluation = _evaluation(old)
    outcomes = []
    for number, letter in enumerate(letters.select(["source", "position"]).to_pylist()):
        source, shard = (int(part) for part in letter["source"].split("/"))
        outcomes.append(
            guard(
                explode,
                rows.slice(number, 1),
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
        )
    return Replayed(_joined(outcomes), deduplicate)


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
    outcome = guard(
        match,
        letter_rows(letters),
        automata,
        Identifier(),
        isolation=old.manifest.config["isolation"],
        stage="matches",
        unit="text",
        id_column="pair_id",
        source="replay",
    )
    outcome.ledger = _as_created(outcome.ledger)
    return Replayed(outcome, _sorted)


def _sorted(table: pa.Table) -> Outcome:
    order = order_by(table["image_id"], table["pair_id"])
    return Outcome(table.take(pa.array(order)), Ledger())


def _as_created(ledger: Ledger) -> Ledger:
    """Rows that come in from dead letters are created as far as the new dataset's input goes."""
    count, ids = ledger.remove("text", "in")
    ledger.add("text", "created", "replayed", count, ids)
    return ledger


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
