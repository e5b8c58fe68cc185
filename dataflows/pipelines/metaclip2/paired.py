"""Job: every row of `matched` with its picture, for a trainer that draws anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa

from curation.metaclip2.draw import whole_images
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.curated import in_pieces
from dataflows.pipelines.metaclip2.pictures import Pictures, with_pictures
from dataflows.transforms.reading import unit_tables
from dataflows.transforms.sink import Sink
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import IMAGE, PAIRED


def _whole(unit: Unit, pictures: Pictures | None = None) -> Iterator[Outcome]:
    """All rows of a shard of ``matched``, an image's texts in one table."""
    for table in whole_images(unit_tables(unit)):
        ledger = Ledger()
        ids = id_sum(table["pair_id"])
        ledger.add("text", "in", "", table.num_rows, ids)
        ledger.add("text", "out", "", table.num_rows, ids)
        rows = table.append_column("image", pa.nulls(table.num_rows, IMAGE))
        yield from in_pieces(Outcome(PAIRED.validate(rows), ledger), pictures)


def paired(context: JobContext, sink: Sink) -> beam.PTransform:
    """As ``curated``, without a draw: a picture stands once for each of its texts."""
    return with_pictures(context, sink, _whole)
