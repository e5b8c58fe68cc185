"""Job: the probability with which balancing keeps each matched pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from curation.metaclip2.draw import whole_images, with_probability
from curation.metaclip2.probabilities import Probabilities
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.balance import BLOB
from dataflows.pipelines.metaclip2.valid_rows import only_valid
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.step import Outcome


@lru_cache(maxsize=1)
def _probabilities(balance: Ref) -> Probabilities:
    return Probabilities.open(balance.open().blob(BLOB))


@dataclass(frozen=True)
class _WithProbability:
    """Images are kept whole: how many texts of an image matched is a column."""

    balance: Ref
    valid: Ref | None
    mode: str

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        probabilities = _probabilities(self.balance)
        for table in whole_images(unit_tables(unit)):
            kept = only_valid(table, self.valid)
            outcome = with_probability(kept.table, probabilities, mode=self.mode)
            if self.valid is not None:
                outcome.ledger.remove("text", "in")
                kept.ledger.remove("text", "out")
                outcome.ledger.merge(kept.ledger)
            yield outcome


def matched(context: JobContext, sink: Sink) -> RunUnits:
    """Shard by shard: all texts of an image lie in one shard."""
    valid = context.inputs.get("valid")
    step = _WithProbability(
        Ref.of(context.inputs["balance"]),
        Ref.of(valid) if valid is not None else None,
        context.config["mode"],
    )
    return RunUnits(DatasetUnits((Ref.of(context.inputs["matches"]),)), step, sink)
