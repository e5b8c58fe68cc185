"""Finding the rows of one image or pair in large sorted datasets: footers first, then one row group."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataflows.report.source import Run, admitted
from schemas.dataset import Dataset
from schemas.errors import IntegrityError
from schemas.table_schemas import ID

FOOTERS = 256
"""A dataset of at most so many shards has all its footers read; a larger sorted one is bisected."""

# Sorted by image id from the first shard to the last; other datasets only inside each shard.
_SORTED = ("pool", "matches", "matched", "valid")


def rows_of_image(run: Run, name: str, image: bytes) -> pa.Table | None:
    """All rows of an image id without its picture; None if the dataset is not there.

    Two columns are added: `_shard` int64 and `_row` int64, the place in the dataset.
    """
    dataset = run.get(name)
    if dataset is None:
        return None
    columns = [column for column in dataset.schema.names if column != "image"]
    parts = [_place(dataset.schema.empty_table().select(columns), 0, [])]
    for shard in _shards(name, dataset, image):
        rows = _rows(run, name, shard, image)
        if rows:
            parts.append(_place(run.take(name, shard, rows, columns), shard, rows))
    return pa.concat_tables(parts)


def image_of_pair(run: Run, name: str, pair: bytes) -> bytes | None:
    """The image id of a pair, or None. Cost: reads the pair ids of the whole dataset (16 bytes a row)."""
    dataset = run.get(name)
    if dataset is None:
        return None
    wanted = pa.scalar(pair, ID)
    for shard in range(len(dataset.shards())):
        start = 0
        for table in run.tables(name, ["pair_id"], shard=shard):
            place = pc.index(table["pair_id"], wanted).as_py()
            if place >= 0:
                row = run.take(name, shard, [start + place], ["image_id"])
                return row["image_id"][0].as_py()
            start += table.num_rows
    return None


def _place(table: pa.Table, shard: int, rows: list[int]) -> pa.Table:
    """The table with `_shard` and `_row` beside it."""
    table = table.replace_schema_metadata(None)
    table = table.append_column("_shard", pa.array([shard] * len(rows), pa.int64()))
    return table.append_column("_row", pa.array(rows, pa.int64()))


def _shards(name: str, dataset: Dataset, image: bytes) -> list[int]:
    """Shards that can hold the image id."""
    filled = [i for i, shard in enumerate(dataset.shards()) if shard.rows]
    if len(filled) <= FOOTERS or name not in _SORTED:
        return filled
    low, high = 0, len(filled)  # the first shard whose largest id is not below
    while low < high:
        middle = (low + high) // 2
        if _largest(dataset, filled[middle]) < image:
            low = middle + 1
        else:
            high = middle
    # All rows of an image lie in one shard, except where a shard was full.
    return filled[low : low + 2]


def _largest(dataset: Dataset, shard: int) -> bytes:
    footer = _footer(dataset, shard)
    paths = [footer.schema.column(i).path for i in range(footer.num_columns)]
    group = footer.row_group(footer.num_row_groups - 1)
    return bytes(group.column(paths.index("image_id")).statistics.max)


def _footer(dataset: Dataset, shard: int) -> pq.FileMetaData:
    path = dataset.shards()[shard].file
    try:
        with dataset.storage.open_input(path) as file:
            return pq.read_metadata(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError(
            f"{dataset.storage.path(path)} cannot be read ({str(error).splitlines()[0]}); run "
            "`dataflows verify` on the dataset and restore what it names"
        ) from None


def _rows(run: Run, name: str, shard: int, image: bytes) -> list[int]:
    """Numbers of the rows of an image id in a shard: ids are read only of row groups that admit it."""
    dataset = run.datasets[name]
    footer = _footer(dataset, shard)
    sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    found: list[int] = []
    for group in admitted(footer, "image_id", [image]):
        ids = dataset.read_row_group(shard, group, ["image_id"])
        run.tally.add(name, ids)
        here = pc.indices_nonzero(pc.equal(ids["image_id"], pa.scalar(image, ID)))
        found += [sum(sizes[:group]) + int(row) for row in here.to_pylist()]
    return found
