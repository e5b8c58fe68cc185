"""Job: the URLs of the input, once an image, in units of whole hosts. No picture is shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from curation.metaclip2.draw import whole_images
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.fetch.packing import host_ids, hosts_of, once, pack
from dataflows.pipelines.metaclip2.buckets import Buckets, bucket_count
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome

_ROW_BYTES = 200


@dataclass(frozen=True)
class _Read:
    """Image ids and URLs of a shard, each image once as far as its rows lie together."""

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        tables = unit_tables(unit, columns=["image_id", "url"])
        for table in whole_images(tables):
            ledger = Ledger()
            ledger.add("image", "in", "", table.num_rows, id_sum(table["image_id"]))
            has_url = pc.is_valid(table["url"])
            without = table.filter(pc.invert(has_url))["image_id"]
            if len(without):
                ledger.add("image", "rejected", "no_url", len(without), id_sum(without))
            yield _merged(table.filter(has_url), ledger)


def _merged(table: pa.Table, ledger: Ledger) -> Outcome:
    kept = once(table)
    count = table.num_rows - kept.num_rows
    ids = id_sum(kept["image_id"])
    gone = (id_sum(table["image_id"]) - ids) % 2**128
    ledger.add("image", "merged", "duplicate_image", count, gone)
    ledger.add("image", "out", "", kept.num_rows, ids)
    return Outcome(kept, ledger)


@dataclass(frozen=True)
class _ByHost:
    buckets: Buckets

    def __call__(self, table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
        hosts = hosts_of(table["url"])
        table = table.append_column("host", hosts).append_column("_hash", host_ids(hosts))
        for key, part in self.buckets.split(table, "_hash"):
            yield key, part.drop_columns(["_hash"])


def _pack(most: int, key: str, table: pa.Table) -> Outcome:
    ledger = Ledger()
    ledger.add("image", "in", "", table.num_rows, id_sum(table["image_id"]))
    outcome = _merged(table, ledger)
    outcome.table = pack(key, outcome.table, most)
    units = len(pc.unique(outcome.table["unit"]))
    hosts = len(pc.unique(outcome.table["host"]))
    outcome.stats = {"units": units, "hosts": hosts}
    return outcome


def units(context: JobContext, sink: Sink) -> ShuffleUnits:
    """All URLs of a host meet in one bucket; a bucket is packed by itself.

    An image id is unique in the result where its rows lie together in the input (pool, matches,
    matched) or share a host; another image id of two hosts is fetched from both.
    """
    inputs = list(context.inputs.values())
    limit = context.config["limit"]
    rows = sum(dataset.manifest.rows for dataset in inputs)
    buckets = Buckets(bucket_count(rows, _ROW_BYTES))
    refs = DatasetUnits(tuple(Ref.of(dataset) for dataset in inputs), limit)
    shuffle = Shuffle(_ByHost(buckets), partial(_pack, context.config["unit"]))
    return ShuffleUnits(refs, _Read(), shuffle, sink)
