"""Job: the draw of one epoch, with pictures where they are at hand or generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import apache_beam as beam

from curation.metaclip2.draw import draw, whole_images
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.pictures import PIECE, Pictures, with_images, with_pictures
from dataflows.transforms.reading import unit_tables
from dataflows.transforms.sink import Sink
from schemas.ledger import Ledger
from schemas.step import Outcome


@dataclass(frozen=True)
class _Draw:
    """The step over a shard of ``matched``; ``pictures`` fills the image column of what stays."""

    seed: int
    epoch: int
    mode: str

    def __call__(self, unit: Unit, pictures: Pictures | None = None) -> Iterator[Outcome]:
        for table in whole_images(unit_tables(unit)):
            yield from in_pieces(draw(table, self.seed, self.epoch, self.mode), pictures)


def in_pieces(outcome: Outcome, pictures: Pictures | None) -> Iterator[Outcome]:
    """The outcome, its image column filled piece by piece where ``pictures`` makes them."""
    if pictures is None:
        yield outcome
        return
    table = outcome.table
    yield replace(outcome, table=table.slice(0, 0))
    for start in range(0, table.num_rows, PIECE):
        part = table.slice(start, PIECE)
        yield Outcome(with_images(part, pictures(part)), Ledger())


def curated(context: JobContext, sink: Sink) -> beam.PTransform:
    """Shard by shard; through a shuffle of ids and texts only where shards hold the pictures."""
    config = context.config
    seed = context.stage.seed
    assert seed is not None
    return with_pictures(context, sink, _Draw(seed, config["epoch"], config["mode"]))
