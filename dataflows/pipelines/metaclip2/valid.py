"""Job: the ids of valid images, sorted and in the same key ranges as the pool's shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.buckets import Buckets, bucket_count
from dataflows.transforms.reading import DatasetUnits, unit_tables
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from schemas.ids import id_sum, id_words
from schemas.ledger import Ledger
from schemas.step import Outcome

_ID_BYTES = 16


def _read(unit: Unit) -> Iterator[Outcome]:
    for table in unit_tables(unit, columns=["image_id"]):
        ledger = Ledger()
        ids = id_sum(table.column("image_id"))
        ledger.add("image", "in", "", table.num_rows, ids)
        ledger.add("image", "out", "", table.num_rows, ids)
        yield Outcome(table, ledger)


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
    """Any committed dataset with an ``image_id`` column will do; its images are not read."""
    dataset = context.inputs["valid_images"]
    rows = dataset.manifest.totals["rows"]
    buckets = Buckets(bucket_count(rows, _ID_BYTES))
    return ShuffleUnits(
        DatasetUnits((dataset.storage.url,)), _read, Shuffle(_Split(buckets), _unique), sink
    )
