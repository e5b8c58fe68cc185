"""Job: the ids of valid images and where their pictures lie, in key ranges like the pool's shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.id_sets import order_by, run_starts
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.buckets import Buckets, bucket_count
from dataflows.pipelines.metaclip2.pictures import has_pictures
from dataflows.pipelines.metaclip2.pool import evaluation_sets
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome

_ROW_BYTES = 28


@dataclass(frozen=True)
class _Read:
    """Image ids of a shard, less those of evaluation sets: here the bytes' hashes are at hand.

    With ``placed`` each has the number of its shard and its row there, else nulls.
    """

    columns: tuple[str, ...]
    evaluation: Ref | None
    placed: bool

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        start = 0
        for table in unit_tables(unit, columns=list(self.columns)):
            table = self._with_place(table, unit.args["shard"], start)
            start += table.num_rows
            ledger = Ledger()
            ids = table.column("image_id")
            ledger.add("image", "in", "", table.num_rows, id_sum(ids))
            if self.evaluation is not None:
                found = evaluation_sets(self.evaluation).find(table)
                for reason, hit in (
                    ("evaluation_set_url", found.url),
                    ("evaluation_set_hash", found.hash & ~found.url),
                ):
                    gone = ids.filter(pa.array(hit))
                    ledger.add("image", "rejected", reason, len(gone), id_sum(gone))
                table = table.filter(pa.array(~(found.url | found.hash)))
            kept = table.select(["image_id", "shard", "row"])
            ledger.add("image", "out", "", kept.num_rows, id_sum(kept.column("image_id")))
            yield Outcome(kept, ledger)

    def _with_place(self, table: pa.Table, shard: int, start: int) -> pa.Table:
        rows = table.num_rows
        shards = pa.array(np.full(rows, shard, np.int32)) if self.placed else pa.nulls(rows)
        numbers = pa.array(np.arange(start, start + rows)) if self.placed else pa.nulls(rows)
        table = table.append_column("shard", shards.cast(pa.int32()))
        return table.append_column("row", numbers.cast(pa.int64()))


def _unique(key: str, table: pa.Table) -> Outcome:
    """One row an image id, with its first place: pictures that are there twice are one."""
    places = [table[name].fill_null(0).to_numpy() for name in ("shard", "row")]
    whole = table.take(pa.array(order_by(table["image_id"], *places)))
    whole = whole.take(pa.array(run_starts(whole["image_id"])))
    ids = whole["image_id"]
    ledger = Ledger()
    ledger.add("image", "in", "", table.num_rows, id_sum(table.column("image_id")))
    merged = table.num_rows - len(ids)
    total = (id_sum(table.column("image_id")) - id_sum(ids)) % 2**128
    ledger.add("image", "merged", "duplicate_image", merged, total)
    ledger.add("image", "out", "", len(ids), id_sum(ids))
    placed = len(ids) - whole["row"].null_count
    stats = {"first": {key: ids[0].as_py().hex()}, "placed": placed}
    return Outcome(whole, ledger, stats=stats)


@dataclass(frozen=True)
class _Split:
    buckets: Buckets

    def __call__(self, table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
        return self.buckets.split(table, "image_id")


def valid(context: JobContext, sink: Sink) -> ShuffleUnits:
    """Any committed dataset with an ``image_id`` column will do; its images are not read.

    Where it holds pictures, later stages take them from there.

    With evaluation sets their images are removed by URL and by exact and perceptual hash, as far as
    the dataset has those columns.
    """
    dataset = context.inputs["valid_images"]
    evaluation = context.inputs.get("evaluation")
    known = ("url", "sha256", "phash") if evaluation is not None else ()
    columns = ("image_id", *(c for c in known if c in dataset.schema.names))
    read = _Read(
        columns, Ref.of(evaluation) if evaluation is not None else None, has_pictures(dataset)
    )
    buckets = Buckets(bucket_count(dataset.manifest.rows, _ROW_BYTES))
    shuffle = Shuffle(_Split(buckets), _unique)
    return ShuffleUnits(DatasetUnits((Ref.of(dataset),)), read, shuffle, sink)
