"""Job: the ids of valid images, sorted and in the same key ranges as the pool's shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.buckets import Buckets, bucket_count
from dataflows.pipelines.metaclip2.pool import evaluation_sets
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from schemas.ids import id_sum, id_words
from schemas.ledger import Ledger
from schemas.step import Outcome

_ID_BYTES = 16


@dataclass(frozen=True)
class _Read:
    """Image ids of a shard, less those of evaluation sets: here the bytes' hashes are at hand."""

    columns: tuple[str, ...]
    evaluation: Ref | None

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        for table in unit_tables(unit, columns=list(self.columns)):
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
            kept = table.select(["image_id"])
            ledger.add("image", "out", "", kept.num_rows, id_sum(kept.column("image_id")))
            yield Outcome(kept, ledger)


def _unique(key: str, table: pa.Table) -> Outcome:
    words = id_words(table.column("image_id").combine_chunks())
    unique = np.unique(words.byteswap().view([("high", "<u8"), ("low", "<u8")]).reshape(-1))
    raw = unique.view("<u8").reshape(-1, 2).byteswap().tobytes()
    ids = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(unique), [None, pa.py_buffer(raw)]
    )
    ledger = Ledger()
    ledger.add("image", "in", "", table.num_rows, id_sum(table.column("image_id")))
    merged = table.num_rows - len(ids)
    total = (id_sum(table.column("image_id")) - id_sum(ids)) % 2**128
    ledger.add("image", "merged", "duplicate_image", merged, total)
    ledger.add("image", "out", "", len(ids), id_sum(ids))
    stats = {"first": {key: ids[0].as_py().hex()}}
    return Outcome(pa.table({"image_id": ids}), ledger, stats=stats)


@dataclass(frozen=True)
class _Split:
    buckets: Buckets

    def __call__(self, table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
        return self.buckets.split(table, "image_id")


def valid(context: JobContext, sink: Sink) -> ShuffleUnits:
    """Any committed dataset with an ``image_id`` column will do; its images are not read.

    With evaluation sets their images are removed by URL and by exact and perceptual hash, as far as
    the dataset has those columns.
    """
    dataset = context.inputs["valid_images"]
    evaluation = context.inputs.get("evaluation")
    known = ("url", "sha256", "phash") if evaluation is not None else ()
    columns = ("image_id", *(c for c in known if c in dataset.schema.names))
    read = _Read(columns, Ref.of(evaluation) if evaluation is not None else None)
    buckets = Buckets(bucket_count(dataset.manifest.rows, _ID_BYTES))
    shuffle = Shuffle(_Split(buckets), _unique)
    return ShuffleUnits(DatasetUnits((Ref.of(dataset),)), read, shuffle, sink)
