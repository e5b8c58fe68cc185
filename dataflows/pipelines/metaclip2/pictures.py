"""Pictures for pairs: generated, or taken from the shards that hold them. No picture is shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.id_sets import run_starts
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.valid_rows import valid_places
from dataflows.transforms.reading import DatasetUnits, Ref
from dataflows.transforms.shuffle import Shuffle, ShuffleUnits
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.dataset import Dataset
from schemas.errors import IntegrityError
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import IMAGE

PIECE = 1_000
"""Pictures at a time: bounds memory, and progress shows."""

_ROW = "headrace.picture_row"

Numbers = npt.NDArray[np.int64]
Pictures = Callable[[pa.Table], pa.Array]


class Step(Protocol):
    """A step over a unit of pairs whose image column is null, filled by ``pictures`` where given."""

    def __call__(self, unit: Unit, pictures: Pictures | None = None) -> Iterator[Outcome]: ...


def with_pictures(context: JobContext, sink: Sink, step: Step) -> beam.PTransform:
    """The step over the shards of ``matched``, and pictures for what it lets through.

    They are those that were fetched (``valid=`` names a dataset that holds them), else generated,
    else those of the records. Where they lie in shards, the pairs go to them: rows of ids and texts
    are shuffled by the shard that holds their picture, which is read once, front to back.
    """
    units = DatasetUnits((Ref.of(context.inputs["matched"]),))
    valid = context.inputs.get("valid")
    if valid is not None and valid.manifest.stats.get("placed"):
        by_valid = _ByFetchedShard(Ref.of(valid))
        holders = (Ref.of(context.inputs["valid_images"]),)
        return ShuffleUnits(units, step, Shuffle(by_valid, _Attach(holders)), sink)
    if context.config["images"] == "generated":
        render = partial(_render, context.config["image_size"])
        return RunUnits(units, partial(step, pictures=render), sink)
    names = [name for name in context.stage.inputs if name.startswith("records")]
    records = [context.inputs[name] for name in names]
    if not any(has_pictures(dataset) for dataset in records):
        return RunUnits(units, step, sink)
    attach = _Attach(tuple(Ref.of(dataset) for dataset in records))
    return ShuffleUnits(units, step, Shuffle(_by_record_shard, attach), sink)


def has_pictures(dataset: Dataset) -> bool:
    """Whether any row holds the bytes of its image, as the stage that made the dataset counted."""
    stats = dataset.manifest.stats
    found = stats.get("with_image") or stats.get("pictures")
    return bool(found) and "image" in dataset.schema.names


def with_images(table: pa.Table, images: pa.Array | pa.ChunkedArray) -> pa.Table:
    """``table`` with its image column replaced."""
    place = table.schema.get_field_index("image")
    return table.set_column(place, pa.field("image", IMAGE), images)


def _by_record_shard(table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    """By the record of each image's first row here: all texts of an image go to one shard."""
    if not table.num_rows:
        return
    starts = run_starts(table["image_id"])
    first = np.repeat(starts, np.diff(starts, append=table.num_rows))
    source, shard, row = (
        table[name].to_numpy().astype(np.int64)[first] for name in ("source", "shard", "row")
    )
    yield from _split(table, source, shard, row)


@dataclass(frozen=True)
class _ByFetchedShard:
    """By the shard of the list's dataset in which each picture lies."""

    valid: Ref

    def __call__(self, table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
        if table.num_rows:
            shard, row = valid_places(self.valid, table["image_id"])
            yield from _split(table, np.zeros_like(shard), shard, row)


def _split(
    table: pa.Table, source: Numbers, shard: Numbers, row: Numbers
) -> Iterator[tuple[str, pa.Table]]:
    table = table.append_column(_ROW, pa.array(row))
    place = source << 32 | shard
    for value in np.unique(place):
        rows = pa.array(np.flatnonzero(place == value))
        yield f"{value >> 32:03d}-{value & 0xFFFFFFFF:08d}", table.take(rows)


@dataclass(frozen=True)
class _Attach:
    """Reads one shard of a dataset with pictures once, and takes those of the rows that came."""

    holders: tuple[Ref, ...]

    def __call__(self, key: str, table: pa.Table) -> Outcome:
        source, shard = (int(part) for part in key.split("-"))
        table = table.sort_by([("image_id", "ascending"), ("pair_id", "ascending")])
        rows = table.column(_ROW).to_numpy()
        images = shard_images(self.holders[source].open(), shard, rows)
        ledger = Ledger()
        ledger.add("text", "in", "", table.num_rows, id_sum(table.column("pair_id")))
        stats = {"pictures": len(images) - images.null_count}
        return Outcome(with_images(table.drop_columns([_ROW]), images), ledger, stats=stats)


def shard_images(holder: Dataset, shard: int, rows: np.ndarray) -> pa.ChunkedArray:
    """The image of each row of a shard, in the order asked: Image structs [n], in small chunks."""
    wanted = np.unique(rows)
    parts = []
    start = 0
    for table in holder.tables(columns=["image"], shard=shard):
        stop = start + table.num_rows
        inside = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)] - start
        parts.append(table.column("image").take(pa.array(inside)).combine_chunks())
        start = stop
    found = pa.concat_arrays([p for part in parts for p in _chunks(part)]) if parts else None
    if found is None or len(found) != len(wanted):
        raise IntegrityError(
            f"{holder.storage.url}: shard {shard} has {start} rows, but row {int(wanted[-1])} is asked "
            "for: the dataset changed since the pool was made; run the recipe again"
        )
    places = np.searchsorted(wanted, rows)
    # A picture with many texts stands there as often: no chunk may pass what 32-bit offsets count.
    cuts = range(0, len(places), PIECE)
    taken = [found.take(pa.array(places[cut : cut + PIECE])) for cut in cuts]
    return pa.chunked_array(taken, IMAGE)


def _chunks(array: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return array.chunks if isinstance(array, pa.ChunkedArray) else [array]


def _render(size: int, table: pa.Table) -> pa.Array:
    from curation.pool.render import render_images

    return render_images(table.column("url"), size=size)
