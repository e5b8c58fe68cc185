"""Streams a committed dataset to a training loop. Position is a fact, not a state.

The k-th sample of an epoch is a pure function of (manifest digest, seed, epoch, window, draw, k):
any number of ranks, loader workers or restarts gives the same global batches, and a restart at k
reads nothing that comes before k's window. `trainer.order` says how the order is made.

With ``draw`` the reader draws anew each epoch from a `matched` or `paired` dataset (MetaCLIP 2's online
balancing): the rule is that of `curation.metaclip2.draw`, so the epoch and seed of a `curated`
dataset give exactly its rows. Positions then count drawn rows.

A reader holds the row groups of one window and one row group more, beside the batch itself. Each
rank reads every row group of a window, since its samples are spread over all of them. A reader is
for one thread; give each worker its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.metaclip2.draw import check_mode
from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError, IntegrityError, UsageError
from schemas.manifest import Manifest
from schemas.storage import Storage
from schemas.table_schemas import CURATED, MATCHED, PAIRED
from trainer.order import Group, Numbers, Order, Places
from trainer.shards import Objects, Shards

WINDOW_BYTES = 128 << 20
WINDOW_ROWS = 1 << 16
KEEP, DROP = "keep", "drop"
REMAINDERS = (KEEP, DROP)
_STATE = ("digest", "seed", "epoch", "window", "draw", "position")
# A take that joins more bytes of one column than 32-bit offsets can count fails.
_TAKE_BYTES = 1 << 30


@dataclass(frozen=True)
class Batch:
    """Rows in order, their global positions (int64[n], ascending), and the state after the global
    batch that they are part of: a restart there continues with the next one."""

    table: pa.Table
    positions: Numbers
    state: dict[str, Any]


def default_window(manifest: Manifest) -> int:
    """Rows of 128 MiB as stored, 65,536 at most: large for texts, bounded for pictures."""
    row_bytes = max(1, manifest.totals.get("bytes", 0) // max(1, manifest.rows))
    return max(1, min(WINDOW_ROWS, WINDOW_BYTES // row_bytes))


class Reader:
    """The samples of one epoch of a committed dataset, by position."""

    def __init__(
        self,
        dataset: Dataset | Storage | str | Path,
        *,
        seed: int = 0,
        epoch: int = 0,
        window: int | None = None,
        draw: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Open a dataset; reads its head and shard list only.

        ``window``: rows shuffled together (default: `default_window`; 1: row groups in random
        order, rows in theirs). ``draw``: "image" or "text", of a `matched` dataset.
        Errors: UsageError for settings that do not fit, and what `open_dataset` raises.
        """
        self.dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
        manifest = self.dataset.manifest
        if draw is not None:
            _check_draw(self.dataset, draw)
        for name, value in (("seed", seed), ("epoch", epoch)):
            if not 0 <= value < 1 << 64:
                raise UsageError(f"{name}={value}: give a number from 0 to 2**64 - 1")
        self.window = default_window(manifest) if window is None else window
        if not 1 <= self.window < 1 << 32:
            raise UsageError(f"window={window}: give a number of rows from 1 to 2**32 - 1")
        if unknown := [name for name in columns or () if name not in self.dataset.schema.names]:
            known = ", ".join(self.dataset.schema.names)
            raise UsageError(f"no column {unknown[0]!r} to read; the columns are {known}")
        self.seed = seed
        self.epoch = epoch
        self.draw = draw
        self.columns = list(columns) if columns is not None else None
        self.digest = manifest.digest
        self._order = Order(self.dataset, seed, epoch, self.window, draw)
        self._shards = Shards(self.dataset)
        self._tables: dict[Group, pa.Table] = {}
        self._lists: dict[Group, dict[str, Objects]] = {}
        self._held: tuple[int, set[Group]] | None = None

    @classmethod
    def resume(
        cls,
        dataset: Dataset | Storage | str | Path,
        state: Mapping[str, Any],
        columns: Sequence[str] | None = None,
    ) -> tuple[Reader, int]:
        """Return the reader that a state came from, and the position to start at.

        Errors: IntegrityError for the state of another dataset, InputError for what is no state.
        """
        opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
        _check_state(opened, state)
        settings = {name: state[name] for name in ("seed", "epoch", "window", "draw")}
        reader = cls(opened, columns=columns, **settings)
        return reader, reader.position_of(state)

    def state(self, position: int) -> dict[str, Any]:
        """Return the state (JSON values) of an epoch continued at `position`."""
        values = (self.digest, self.seed, self.epoch, self.window, self.draw, position)
        return dict(zip(_STATE, values, strict=True))

    def position_of(self, state: Mapping[str, Any]) -> int:
        """Return a state's position.

        Errors: IntegrityError for the state of another dataset, UsageError for one of other
        settings (the same number would be another sample), InputError for what is no state.
        """
        _check_state(self.dataset, state)
        for name, value in self.state(0).items():
            if name not in ("digest", "position") and state[name] != value:
                raise UsageError(
                    f"the state was saved with {name}={state[name]}, this reader has "
                    f"{name}={value}: give the same, or start the epoch anew"
                )
        position = int(state["position"])
        if self._order.reach(position) < position:
            raise InputError(
                f"the state has position {position}, but the epoch has {len(self)} samples"
            )
        return position

    def __len__(self) -> int:
        """Return the number of samples; with a draw this reads all ids and probabilities."""
        return self._order.reach(self.dataset.manifest.rows)

    def locate(self, positions: Sequence[int] | Numbers) -> Places:
        """Return shard, row group and row of samples; UsageError for a position past the end."""
        at = np.asarray(positions, np.int64)
        if len(at):
            low, high = int(at.min()), int(at.max())
            if low < 0 or self._order.reach(high + 1) <= high:
                wrong = low if low < 0 else high
                raise UsageError(f"there is no sample {wrong}: the epoch has {len(self)}")
        return self._order.locate(at)

    def take(self, positions: Sequence[int] | Numbers) -> pa.Table:
        """Return the samples at `positions`, in that order; reads only their row groups."""
        at = np.asarray(positions, np.int64)
        places = self.locate(at)
        if len(at) == 0:
            return self._empty()
        self._hold(int(at[-1]))
        parts, order, size = [], [], 0
        for group, here in _by_group(places):
            parts.append(self._table(group).take(pa.array(places.sample[here])))
            order.append(here)
            size += parts[-1].nbytes
            if size > _TAKE_BYTES and len(at) > 1:
                half = len(at) // 2
                return pa.concat_tables([self.take(at[:half]), self.take(at[half:])])
        back = np.empty(len(at), np.int64)
        back[np.concatenate(order)] = np.arange(len(at))
        return pa.concat_tables(parts).take(pa.array(back))

    def lists(self, positions: Sequence[int] | Numbers, keep: bool = True) -> dict[str, list[Any]]:
        """Return the samples at `positions` as {column: Python values}, in that order.

        As ``take(positions).to_pydict()``, several times faster, but a column of images gives their
        bytes alone: a view into the shard's file where it is local, None for no image. Views stay
        valid. Strings of a window's row groups are kept as Python objects. ``keep=False`` leaves the
        window that is kept as it is, for a sample out of turn.
        """
        at = np.asarray(positions, np.int64)
        places = self.locate(at)
        names = self.columns if self.columns is not None else self.dataset.schema.names
        found = {name: np.empty(len(at), object) for name in names}
        if len(at) and keep:
            self._hold(int(at[-1]))
        for group, here in _by_group(places):
            values, samples = self._values(group), places.sample[here]
            for name, column in found.items():
                column[here] = values[name][samples]
        return {name: column.tolist() for name, column in found.items()}

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
        worker: int = 0,
        workers: int = 1,
        remainder: str = KEEP,
    ) -> Iterator[Batch]:
        """Yield the batches of a rank from position ``start`` to the epoch's end.

        Step s is the global batch of positions start + s * n to start + (s + 1) * n, with
        n = ``batch_size`` * ``ranks``; rank r has those with k = r mod ``ranks``. A loader worker
        w of m yields the steps s = w mod m, so reading the workers in turn gives the rank's steps.
        All ranks have equally many steps. The last step, if shorter: ``remainder`` "keep" yields
        what there is (possibly no row on some ranks), "drop" leaves it out on every rank.
        Errors: UsageError for numbers that do not fit or a start past the end.
        """
        for name, value, of in (("rank", rank, ranks), ("worker", worker, workers)):
            if not 0 <= value < of:
                raise UsageError(f"{name}={value} of {of}: give a number from 0 to {of - 1}")
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size}: give at least 1")
        if remainder not in REMAINDERS:
            raise UsageError(f"remainder={remainder} is unknown: give {' or '.join(REMAINDERS)}")
        if start < 0 or self._order.reach(start) < start:
            raise UsageError(f"there is no position {start}: the epoch has {len(self)} samples")
        return self._batches(batch_size * ranks, start, rank, ranks, worker, workers, remainder)

    def _batches(
        self, n: int, start: int, rank: int, ranks: int, worker: int, workers: int, remainder: str
    ) -> Iterator[Batch]:
        first = start + worker * n
        while True:
            end = self._order.reach(first + n)
            if end <= first or (remainder == DROP and end < first + n):
                return
            mine = np.arange(first + (rank - first) % ranks, end, ranks, dtype=np.int64)
            yield Batch(self.take(mine), mine, self.state(end))
            first += workers * n

    def _hold(self, position: int) -> None:
        """Keep the row groups of a position's window for the next batch, and no others.

        Of values those of the window before too: loader threads cross a boundary in turns.
        """
        window = position // self.window
        if self._held is None or self._held[0] != window:
            last = self._held[1] if self._held else set()
            self._held = window, self._order.groups(window)
            self._shards.check({shard for shard, _ in self._held[1]})
            self._tables = {g: t for g, t in self._tables.items() if g in self._held[1]}
            self._lists = {g: v for g, v in self._lists.items() if g in self._held[1] | last}

    def _values(self, group: Group) -> dict[str, Objects]:
        """The samples of a row group as Python objects: object[n] a column."""
        if (found := self._lists.get(group)) is not None:
            return found
        names = self.columns if self.columns is not None else self.dataset.schema.names
        raw = self._shards.values(*group, names)
        if (kept := self._order.kept(group)) is not None:
            raw = {name: values[kept] for name, values in raw.items()}
        if self._held is not None and group in self._held[1]:
            self._lists[group] = raw
        return raw

    def _table(self, group: Group) -> pa.Table:
        """The samples of a row group."""
        if (table := self._tables.get(group)) is not None:
            return table
        self._shards.check({group[0]})
        table = self.dataset.read_row_group(*group, self.columns)
        if (kept := self._order.kept(group)) is not None:
            table = table.take(pa.array(kept))
        if self._held is not None and group in self._held[1]:
            self._tables[group] = table
        return table

    def _empty(self) -> pa.Table:
        schema = self.dataset.schema
        names = self.columns if self.columns is not None else schema.names
        return pa.schema([schema.field(name) for name in names]).empty_table()


def _by_group(places: Places) -> Iterator[tuple[Group, Numbers]]:
    """Row groups one after the other, and which of the samples lie in each."""
    order = np.lexsort((places.group, places.shard))
    shards, groups = places.shard[order], places.group[order]
    change = (np.diff(shards) != 0) | (np.diff(groups) != 0)
    bounds = [0, *(np.flatnonzero(change) + 1).tolist(), len(order)] if len(order) else [0]
    for low, high in itertools.pairwise(bounds):
        yield (int(shards[low]), int(groups[low])), order[low:high]


def _check_draw(dataset: Dataset, draw: str) -> None:
    check_mode(draw)
    name, url = dataset.spec.name, dataset.storage.url
    if name == CURATED.name:
        raise UsageError(
            f"draw={draw}: {url} is a curated dataset, which is one draw already, and another "
            "would square the probabilities; give the `matched` dataset that it was drawn from, "
            "or leave draw out"
        )
    if name not in (MATCHED.name, PAIRED.name):
        raise UsageError(
            f"draw={draw} needs a matched dataset (keep_probability, image_texts); {url} is "
            f"{name}: give `matched`, or `paired` with pictures, or leave draw out"
        )


def _check_state(dataset: Dataset, state: Mapping[str, Any]) -> None:
    if missing := [name for name in _STATE if name not in state]:
        raise InputError(f"not a reader's state: {missing[0]} is missing (has {sorted(state)})")
    for name in ("seed", "epoch", "window", "position"):
        value = state[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"not a reader's state: {name} is {value!r}, not a whole number")
    digest = dataset.manifest.digest
    if state["digest"] != digest:
        raise IntegrityError(
            f"the state is of dataset {state['digest']}, but {dataset.storage.url} is {digest}: "
            "give the dataset that the run began with, or start anew"
        )
