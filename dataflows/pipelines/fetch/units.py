"""Job: the URLs of the input, once an image, in units of whole hosts. No picture is shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from curation.metaclip2.draw import whole_images
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.fetch.packing import (
    host_ids,
    hosts_of,
    large_parts,
    once,
    pack,
    units_at_most,
)
from dataflows.pipelines.metaclip2.buckets import Buckets, bucket_count
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from schemas.dataset import Dataset
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome

_ROW_BYTES = 200


def distinct(unit: Unit) -> Iterator[Outcome]:
    """Image ids and URLs of a shard, each image once as far as its rows lie together."""
    for table in whole_images(unit_tables(unit, columns=["image_id", "url"])):
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


@lru_cache(maxsize=1)
def _large(hosts: Ref) -> dict[str, int]:
    rows = [row for table in hosts.open().tables() for row in table.to_pylist()]
    return {row["host"]: row["urls"] for row in rows}


@dataclass(frozen=True)
class _ByHost:
    """By ranges of the hosts' hashes; a large host by itself, in parts by ranges of image ids."""

    buckets: Buckets
    hosts: Ref

    def __call__(self, table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
        table = table.append_column("host", hosts_of(table["url"]))
        large = _large(self.hosts)
        alone = pc.is_in(table["host"], value_set=pa.array(list(large), pa.string()))
        rest = table.filter(pc.invert(alone))
        rest = rest.append_column("_hash", host_ids(rest["host"]))
        for key, part in self.buckets.split(rest, "_hash"):
            yield key, part.drop_columns(["_hash"])
        table = table.filter(alone)
        for host in pc.unique(table["host"]).to_pylist():
            rows = table.filter(pc.equal(table["host"], host))
            hashed = host_ids(rows["host"].slice(0, 1))
            bucket = f"{int(self.buckets.of(hashed)[0]):08d}.{hashed[0].as_py().hex()[:16]}"
            for key, part in Buckets(large_parts(large[host])).split(rows, "image_id"):
                yield f"{bucket}.{key}", part


@dataclass(frozen=True)
class _Pack:
    most: int
    hosts: Ref

    def __call__(self, key: str, table: pa.Table) -> Outcome:
        ledger = Ledger()
        ledger.add("image", "in", "", table.num_rows, id_sum(table["image_id"]))
        outcome = _merged(table, ledger)
        urls = _large(self.hosts).get(table["host"][0].as_py())
        share = units_at_most(urls, self.most) if urls else 0
        outcome.table = pack(key, outcome.table, self.most, share)
        outcome.stats = {"units": len(pc.unique(outcome.table["unit"]))}
        return outcome


def units(context: JobContext, sink: Sink) -> ShuffleUnits:
    """All URLs of a host meet in one bucket, which is packed by itself; only those of a large host
    are packed in parts.

    An image id is unique in the result where its rows lie together in the input (pool, matches,
    matched) or share a host; another image id of two hosts is fetched from both.
    """
    inputs = url_inputs(context)
    rows = sum(dataset.manifest.rows for dataset in inputs)
    buckets = Buckets(bucket_count(rows, _ROW_BYTES))
    refs = DatasetUnits(tuple(Ref.of(dataset) for dataset in inputs), context.config["limit"])
    hosts = Ref.of(context.inputs["hosts"])
    shuffle = Shuffle(_ByHost(buckets, hosts), _Pack(context.config["unit"], hosts))
    return ShuffleUnits(refs, distinct, shuffle, sink)


def url_inputs(context: JobContext) -> list[Dataset]:
    """The datasets whose URLs are fetched, in order."""
    return [d for name, d in context.inputs.items() if name.startswith("urls-")]
