"""Job: the hosts of so many URLs that one worker cannot hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.fetch import packing
from dataflows.pipelines.fetch.units import distinct, url_inputs
from dataflows.pipelines.metaclip2.buckets import Buckets, bucket_count
from dataflows.transforms.reading import DatasetUnits, Ref
from dataflows.transforms.shuffle import CombineUnits, TableCombine
from dataflows.transforms.sink import Sink
from schemas.ledger import Ledger
from schemas.step import Outcome

_ROW_BYTES = 40


@dataclass(frozen=True)
class _Count:
    """URLs of each host in one unit, in ranges of the hosts' hashes."""

    buckets: Buckets

    def __call__(self, unit: Unit) -> Iterator[tuple[str, pa.Table]]:
        parts = []
        for outcome in distinct(unit):
            hosts = packing.hosts_of(outcome.table["url"])
            ones = pa.array([1] * len(hosts), pa.int64())
            parts.append(_fold(pa.table({"host": hosts, "urls": ones})))
        if parts:
            table = _fold(pa.concat_tables(parts))
            table = table.append_column("_hash", packing.host_ids(table["host"]))
            for key, part in self.buckets.split(table, "_hash"):
                yield key, part.drop_columns(["_hash"])


def _fold(table: pa.Table) -> pa.Table:
    summed = table.group_by("host").aggregate([("urls", "sum")])
    return pa.table({"host": summed["host"], "urls": summed["urls_sum"]})


def _rows(key: str, table: pa.Table) -> Outcome:
    large = table.filter(pc.greater(table["urls"], packing.LARGE)).sort_by("host")
    ledger = Ledger()
    ledger.add("entry", "created", "derived", large.num_rows)
    return Outcome(large, ledger, stats={"hosts": table.num_rows})


def hosts(context: JobContext, sink: Sink) -> CombineUnits:
    """Counted inside each unit, then by ranges of hashes; only large hosts are written down."""
    inputs = url_inputs(context)
    rows = sum(dataset.manifest.rows for dataset in inputs)
    count = _Count(Buckets(bucket_count(rows, _ROW_BYTES)))
    refs = DatasetUnits(tuple(Ref.of(dataset) for dataset in inputs), context.config["limit"])
    return CombineUnits(refs, count, TableCombine(_fold), _rows, sink)
