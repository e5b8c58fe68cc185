"""Job: pairs of documents that share a key of deduplication. Texts are not shuffled, keys are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.text.exact import contents, equal_pairs
from curation.text.near import NearOptions, buckets, pairs, signatures
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.buckets import Buckets, bucket_count
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from schemas.ledger import Ledger
from schemas.step import Outcome

_COLUMNS = ["doc_id", "split", "text", "file", "position"]
_EXACT, _NEAR = "exact", "near"
_ROW_BYTES = 64


@dataclass(frozen=True)
class _Keys:
    """The step over a shard of documents: the rows that are shuffled, one a document and key."""

    near: dict[str, Any] | None

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        for table in unit_tables(unit, _COLUMNS):
            yield _sent(contents(table))
            if self.near is not None:
                options = NearOptions.from_json(self.near)
                yield _sent(buckets(signatures(table, options)))


def _sent(rows: pa.Table) -> Outcome:
    ledger = Ledger()
    ledger.add("entry", "created", "derived", rows.num_rows)
    ledger.add("entry", "out", "", rows.num_rows)
    return Outcome(rows, ledger)


@dataclass(frozen=True)
class _ByKey:
    """Ranges of contents and of the hashes of bands."""

    contents: Buckets
    bands: int

    def __call__(self, table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
        if "content" in table.column_names:
            for key, part in self.contents.split(table, "content"):
                yield f"{_EXACT}-{key}", part
            return
        high = table["bucket"].to_numpy() >> np.uint64(32)
        numbers = (high * np.uint64(self.bands) >> np.uint64(32)).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], np.arange(self.bands + 1))
        for number in np.flatnonzero(np.diff(bounds)):
            rows = order[bounds[number] : bounds[number + 1]]
            yield f"{_NEAR}-{number:08d}", table.take(pa.array(rows))


@dataclass(frozen=True)
class _Pairs:
    near: dict[str, Any] | None

    def __call__(self, key: str, table: pa.Table) -> Outcome:
        exact = key.startswith(_EXACT)
        near = NearOptions.from_json(self.near or {})
        found = equal_pairs(table) if exact else pairs(table, near, _NEAR)
        # Two buckets may hold the same pair alone; the shards of a dataset must differ.
        bucket = pa.repeat(pa.scalar(key), found.num_rows)
        found = found.set_column(found.schema.get_field_index("bucket"), "bucket", bucket)
        ledger = Ledger()
        ledger.add("entry", "in", "", table.num_rows)
        ledger.add("entry", "merged", "distinct_key", table.num_rows - found.num_rows)
        ledger.add("entry", "out", "", found.num_rows)
        return Outcome(found, ledger, stats={_EXACT if exact else _NEAR: found.num_rows})


def candidates(context: JobContext, sink: Sink) -> ShuffleUnits:
    """Rows of equal keys meet in one bucket, which is paired by itself."""
    documents = context.inputs["documents"]
    near = context.config.get("near")
    rows = documents.manifest.rows
    bands = 1
    if near is not None:
        options = NearOptions.from_json(near)
        size = _ROW_BYTES + (4 * options.slots if options.threshold else 0)
        bands = bucket_count(rows * options.bands, size)
    shuffle = Shuffle(_ByKey(Buckets(bucket_count(rows, _ROW_BYTES)), bands), _Pairs(near))
    return ShuffleUnits(DatasetUnits((Ref.of(documents),)), _Keys(near), shuffle, sink)
