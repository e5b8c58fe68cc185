"""Streaming reader of committed datasets: shuffled, resumable, optionally balanced online.

The order is a function of (dataset digest, seed, epoch): row groups are permuted over the whole
dataset, then the rows of every ``window`` consecutive row groups together. So the k-th sample is
a fact, not a state; any number of restarts gives the same samples. Memory: one window, about
14 MB a row group before decoding.

With ``balance`` each epoch draws anew from a ``matched`` dataset (MetaCLIP 2, algorithm 1), by the
same function that draws the ``curated`` dataset of epoch 0. Drawing from ``curated`` would square
the probabilities, so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.metaclip2.draw import IMAGE_MODE, MODES, draw
from schemas.dataset import Dataset
from schemas.errors import UsageError
from schemas.ids import uniform

_SALT_GROUPS = 101
_SALT_ROWS = 102


@dataclass(frozen=True, order=True)
class Position:
    """A place in the stream: sample ``offset`` of window ``window`` of ``epoch``."""

    epoch: int = 0
    window: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Source:
    """Where a sample lies: shard and row group by number, row within the row group."""

    shard: int
    row_group: int
    row: int


@dataclass(frozen=True)
class Batch:
    """Rows of one epoch and the position from which the stream goes on."""

    table: pa.Table
    start: Position
    next: Position


class Reader:
    """Reads a committed dataset in the order of (dataset, seed, epoch)."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        window: int = 4,
        columns: Sequence[str] | None = None,
        balance: str | None = None,
    ) -> None:
        """Shuffle within ``window`` row groups; ``balance``: None, "image" or "text".

        UsageError: a window below 1, an unknown mode, or ``balance`` of a dataset that has no
        ``keep_probability`` or has been drawn already.
        """
        if window < 1:
            raise UsageError(f"window={window} row groups is too small: give 1 or more")
        if balance is not None:
            _check_balance(dataset, balance)
        self.dataset = dataset
        self.seed = seed
        self.window = window
        self.columns = list(columns) if columns is not None else None
        self.balance = balance
        self._word = int(dataset.manifest.digest[:16], 16)
        self._groups = [
            (number, group)
            for number, shard in enumerate(dataset.shards())
            if shard.rows
            for group in range(shard.row_groups)
        ]
        self._rows: dict[int, list[int]] = {}
        self._edges: dict[int, tuple[pa.Scalar, pa.Scalar]] = {}

    @property
    def windows(self) -> int:
        """Windows of an epoch."""
        return -(-len(self._groups) // self.window)

    def batches(self, rows: int, start: Position | None = None) -> Iterator[Batch]:
        """Yield the batches of ``rows`` rows from ``start`` to the end of its epoch.

        Batches cross windows; only the last of an epoch may be shorter. A restart at any
        ``batch.next`` goes on with the same rows.
        """
        if rows < 1:
            raise UsageError(f"a batch of {rows} rows is too small: give 1 or more")
        begin = here = start or Position()
        parts: list[pa.Table] = []
        missing = rows
        for window in range(here.window, self.windows):
            table = self.read_window(here.epoch, window)
            offset = here.offset if window == here.window else 0
            while offset < table.num_rows:
                part = table.slice(offset, missing)
                offset += part.num_rows
                missing -= part.num_rows
                parts.append(part)
                if missing == 0:
                    end = Position(here.epoch, window, offset)
                    yield Batch(pa.concat_tables(parts), begin, end)
                    parts, missing, begin = [], rows, end
        if parts:
            yield Batch(pa.concat_tables(parts), begin, Position(here.epoch + 1))

    def read_window(self, epoch: int, window: int) -> pa.Table:
        """Return a window's samples in their order (after the draw, with ``balance``)."""
        groups = self._window_groups(epoch, window)
        columns = None if self.balance else self.columns
        parts = [self._group(place, epoch, columns) for place in groups]
        table = pa.concat_tables(parts)
        table = table.take(self._row_order(epoch, window, table.num_rows))
        return table.select(self.columns) if self.columns is not None else table

    def position(self, epoch: int, sample: int) -> Position:
        """Return the position of an epoch's k-th sample.

        Reads footers; with ``balance``, the windows before it, for their draw decides the count.
        """
        left = sample
        for window in range(self.windows):
            size = self._window_size(epoch, window)
            if left < size:
                return Position(epoch, window, left)
            left -= size
        raise UsageError(
            f"epoch {epoch} of {self.dataset.storage.url} has {sample - left} samples; "
            f"sample {sample} was asked for"
        )

    def locate(self, position: Position) -> Source:
        """Return the shard, row group and row of a sample (without ``balance``)."""
        if self.balance is not None:
            raise UsageError(
                "locate() needs a reader without balance: rows of a draw have pair ids"
            )
        groups = self._window_groups(position.epoch, position.window)
        sizes = [self._size(place) for place in groups]
        order = self._row_order(position.epoch, position.window, sum(sizes))
        if not 0 <= position.offset < len(order):
            raise UsageError(f"{position} is outside: the window has {len(order)} samples")
        row = int(order[position.offset])
        for place, size in zip(groups, sizes, strict=True):
            if row < size:
                return Source(*self._groups[place], row)
            row -= size
        raise AssertionError("unreachable: the rows of the groups are the window's")

    # -- order -----------------------------------------------------------------------------

    def _permutation(self, count: int, tag: int, epoch: int, salt: int) -> npt.NDArray[np.int64]:
        words = np.empty((count, 2), "<u8")
        words[:, 0] = np.arange(count)
        words[:, 1] = self._word ^ tag
        return np.argsort(uniform(self.seed, epoch, words, salt), kind="stable")

    def _window_groups(self, epoch: int, window: int) -> list[int]:
        if not 0 <= window < self.windows:
            raise UsageError(f"window {window} does not exist: an epoch has {self.windows}")
        order = self._permutation(len(self._groups), 0, epoch, _SALT_GROUPS)
        return [int(i) for i in order[window * self.window : (window + 1) * self.window]]

    def _row_order(self, epoch: int, window: int, rows: int) -> npt.NDArray[np.int64]:
        return self._permutation(rows, window, epoch, _SALT_ROWS)

    def _window_size(self, epoch: int, window: int) -> int:
        if self.balance is not None:
            return self.read_window(epoch, window).num_rows
        return sum(self._size(place) for place in self._window_groups(epoch, window))

    def _size(self, place: int) -> int:
        shard, group = self._groups[place]
        if shard not in self._rows:
            self._rows[shard] = self.dataset.row_group_rows(shard)
        return self._rows[shard][group]

    # -- rows ------------------------------------------------------------------------------

    def _group(self, place: int, epoch: int, columns: list[str] | None) -> pa.Table:
        table = self.dataset.read_row_group(*self._groups[place], columns)
        if self.balance is None:
            return table
        if self.balance == IMAGE_MODE:
            table = self._whole_images(place, table)
        return draw(table, self.seed, epoch, self.balance).table

    def _whole_images(self, place: int, table: pa.Table) -> pa.Table:
        """Return the rows of the images that begin in a row group, with those that follow it.

        An image's rows lie together (datasets are sorted by image id), but a cut may part them.
        """
        first, last = self._edge(place)
        if place and self._edge(place - 1)[1] == first:
            table = table.filter(pc.not_equal(table["image_id"], first))
        parts = [table] if table.num_rows else []
        for later in range(place + 1, len(self._groups)) if parts else ():
            if self._edge(later)[0] != last:
                break
            more = self.dataset.read_row_group(*self._groups[later])
            parts.append(more.filter(pc.equal(more["image_id"], last)))
            if self._edge(later)[1] != last:
                break
        return pa.concat_tables(parts) if parts else table

    def _edge(self, place: int) -> tuple[pa.Scalar, pa.Scalar]:
        """The first and the last image id of a row group."""
        if place not in self._edges:
            table = self.dataset.read_row_group(*self._groups[place], ["image_id"])
            self._edges[place] = (table["image_id"][0], table["image_id"][-1])
        return self._edges[place]


def _check_balance(dataset: Dataset, balance: str) -> None:
    url, schema = dataset.storage.url, dataset.spec.name
    if balance not in MODES:
        raise UsageError(f"balance={balance} is unknown: give {' or '.join(MODES)}")
    if schema == "curated":
        raise UsageError(
            f"{url} is a curated dataset: it is the draw of one epoch already, and balancing it "
            "again would square the probabilities. Give the matched dataset it was drawn from, or "
            "leave balance out"
        )
    if schema != "matched":
        raise UsageError(
            f"{url} holds {schema}, which has no keep_probability: online balancing needs a "
            "matched dataset"
        )
