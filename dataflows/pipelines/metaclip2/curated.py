"""Job: the draw of one epoch, with pictures where they are at hand or generated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import apache_beam as beam
import numpy as np
import pyarrow as pa

from curation.metaclip2.draw import draw, whole_images
from dataflows.engine.stage import JobContext, Unit
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.dataset import Dataset
from schemas.errors import IntegrityError
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import IMAGE

_PICTURES = 1_000  # rendered at a time: bounds memory, and progress shows

Pictures = Callable[[pa.Table], pa.Array]


@dataclass(frozen=True)
class _Draw:
    """The step over a shard of ``matched``; ``pictures`` fills the image column of what stays."""

    seed: int
    epoch: int
    mode: str
    pictures: Pictures | None = None

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        for table in whole_images(unit_tables(unit)):
            outcome = draw(table, self.seed, self.epoch, self.mode)
            if self.pictures is None:
                yield outcome
                continue
            kept = outcome.table
            yield replace(outcome, table=kept.slice(0, 0))
            for start in range(0, kept.num_rows, _PICTURES):
                part = kept.slice(start, _PICTURES)
                yield Outcome(with_images(part, self.pictures(part)), Ledger())


def with_images(table: pa.Table, images: pa.Array | pa.ChunkedArray) -> pa.Table:
    """``table`` with its image column replaced."""
    place = table.schema.get_field_index("image")
    return table.set_column(place, pa.field("image", IMAGE), images)


def _by_record_shard(table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    """Kept rows go back to the shard of records that holds their pictures; no picture moves."""
    source = table.column("source").to_numpy().astype(np.int64)
    place = source << 32 | table.column("shard").to_numpy().astype(np.int64)
    for value in np.unique(place):
        rows = pa.array(np.flatnonzero(place == value))
        yield f"{value >> 32:03d}-{value & 0xFFFFFFFF:08d}", table.take(rows)


@dataclass(frozen=True)
class _Attach:
    """Reads one shard of records once, front to back, and takes the pictures of the kept rows."""

    records: tuple[Ref, ...]

    def __call__(self, key: str, table: pa.Table) -> Outcome:
        source, shard = (int(part) for part in key.split("-"))
        table = table.sort_by([("image_id", "ascending"), ("pair_id", "ascending")])
        rows = table.column("row").to_numpy()
        images = shard_images(self.records[source].open(), shard, rows)
        ids = table.column("pair_id")
        ledger = Ledger()
        ledger.add("text", "in", "", table.num_rows, id_sum(ids))
        stats = {"pictures": len(images) - images.null_count}
        return Outcome(with_images(table, images), ledger, stats=stats)


def shard_images(records: Dataset, shard: int, rows: np.ndarray) -> pa.Array:
    """The image of each row of a shard of records, in the order asked: Image struct array[n]."""
    wanted = np.unique(rows)
    parts = []
    start = 0
    for table in records.tables(columns=["image"], shard=shard):
        stop = start + table.num_rows
        inside = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)] - start
        parts.append(table.column("image").take(pa.array(inside)).combine_chunks())
        start = stop
    found = pa.concat_arrays([p for part in parts for p in _chunks(part)]) if parts else None
    if found is None or len(found) != len(wanted):
        raise IntegrityError(
            f"{records.storage.url}: shard {shard} has {start} rows, but row {int(wanted[-1])} is asked "
            "for: the records changed since the pool was made; run the recipe again"
        )
    return found.take(pa.array(np.searchsorted(wanted, rows)))


def _chunks(array: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return array.chunks if isinstance(array, pa.ChunkedArray) else [array]


def _render(size: int, table: pa.Table) -> pa.Array:
    from curation.pool.render import render_images

    return render_images(table.column("url"), size=size)


def curated(context: JobContext, sink: Sink) -> beam.PTransform:
    """Shard by shard; through a shuffle of ids and texts only where records hold the pictures."""
    config = context.config
    seed = context.stage.seed
    assert seed is not None
    units = DatasetUnits((Ref.of(context.inputs["matched"]),))
    step = _Draw(seed, config["epoch"], config["mode"])
    if config["images"] == "generated":
        pictures = partial(_render, config["image_size"])
        step = _Draw(seed, config["epoch"], config["mode"], pictures)
        return RunUnits(units, step, sink)
    names = [name for name in context.stage.inputs if name != "matched"]
    records = [context.inputs[name] for name in names]
    if not any(has_pictures(dataset) for dataset in records):
        return RunUnits(units, step, sink)
    attach = _Attach(tuple(Ref.of(dataset) for dataset in records))
    return ShuffleUnits(units, step, Shuffle(_by_record_shard, attach), sink)


def has_pictures(records: Dataset) -> bool:
    """Whether any record holds the bytes of its image, as the stage that made the records counted."""
    return bool(records.manifest.stats.get("with_image"))
