"""Where the k-th sample of an epoch lies: a pure function of the dataset, seed, epoch and k.

Shards are permuted and taken in blocks of `BLOCK_SHARDS`; all row groups of a block's shards are
permuted; in the stream of rows that this gives, every window of W rows is permuted once more. A
dataset of one block therefore has all its row groups permuted; a web pool is never indexed whole:
the shard list says where a block begins, and only the footers of blocks in use are read.

With an epoch draw the stream has drawn rows only. How many a row group keeps is found by one pass
over ids and probabilities, block by block up to the position asked for, and stays in memory: one
bit a row of `matched`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.metaclip2.draw import DECIDING, IMAGE_MODE, decide, whole_images
from schemas.dataset import Dataset
from schemas.errors import IntegrityError
from schemas.ids import id128, uniform

BLOCK_SHARDS = 16
"""Shards whose row groups are permuted together (16 shards are about 4 GB). Part of the order."""

SALT_ORDER = 4
"""Salt of the random numbers that order samples."""

_AT_ONCE = 1 << 14  # rows whose windows are permuted in one go

Numbers = npt.NDArray[np.int64]
Group = tuple[int, int]
"""(shard, row group)."""


@dataclass(frozen=True)
class Places:
    """Where samples lie: int64[n] each. ``row`` counts in the shard, ``sample`` in the row group's
    samples (its drawn rows, or all)."""

    shard: Numbers
    group: Numbers
    row: Numbers
    sample: Numbers


@dataclass(frozen=True)
class _Block:
    """Row groups in their order: shard, number in it, its first row, and int64[g + 1] ``starts``:
    the block's samples before each."""

    shard: Numbers
    group: Numbers
    first: Numbers
    starts: Numbers


def permutation(
    digest: str, seed: int, epoch: int, kind: str, number: int, size: int
) -> npt.NDArray[np.int64]:
    """Return a permutation of range(size), a pure function of its arguments.

    Sorts hashed numbers, as every random choice of the project: no generator of a library, whose
    stream a newer version may change.
    """
    return permutations(digest, seed, epoch, kind, range(number, number + 1), size)[0]


def permutations(
    digest: str, seed: int, epoch: int, kind: str, numbers: range, size: int
) -> npt.NDArray[np.int64]:
    """Return `permutation` of each of `numbers`: int64[len(numbers), size]. Small ones are 3 times
    faster many at a time."""
    keys = np.empty((len(numbers), size, 2), "<u8")
    keys[:, :, 0] = np.arange(size, dtype=np.uint64)
    for row, number in zip(keys, numbers, strict=True):
        name = id128(b"order", digest.encode(), kind.encode(), number.to_bytes(8, "little"))
        row[:, 1] = int.from_bytes(name[:8], "little")
    drawn = uniform(seed, epoch, keys.reshape(-1, 2), SALT_ORDER)
    return np.argsort(drawn.reshape(len(numbers), size), axis=1, kind="stable")


class Order:
    """The order of one epoch. Index parts are read when first needed and kept."""

    def __init__(
        self, dataset: Dataset, seed: int, epoch: int, window: int, draw: str | None
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.epoch = epoch
        self.window = window
        self.draw = draw
        shards = dataset.shards()
        self._shards = self._permutation("shards", 0, len(shards))
        self._blocks: dict[int, _Block] = {}
        self._kept: dict[Group, npt.NDArray[np.uint8]] = {}
        self._windows: tuple[range, Numbers] = range(0), np.empty((0, 0), np.int64)
        rows = np.array([shards[i].rows for i in self._shards], np.int64)
        self._count = -(-len(shards) // BLOCK_SHARDS)
        # ends[b] samples come before block b: known from the shard list, unless rows are drawn.
        self._ends = [0]
        if draw is None:
            for start in range(0, len(rows), BLOCK_SHARDS):
                self._ends.append(self._ends[-1] + int(rows[start : start + BLOCK_SHARDS].sum()))

    def reach(self, limit: int) -> int:
        """Return the number of samples, or `limit` if there are more (less of a pass is needed)."""
        while self._ends[-1] < limit and len(self._ends) <= self._count:
            block = self._block(len(self._ends) - 1)
            self._ends.append(self._ends[-1] + int(block.starts[-1]))
        return min(limit, self._ends[-1])

    def locate(self, positions: Numbers) -> Places:
        """Return where the samples at `positions` (all below the number of samples) lie."""
        stream = self._before_windows(positions)
        out = Places(*(np.empty(len(stream), np.int64) for _ in range(4)))
        number = np.searchsorted(self._ends, stream, side="right") - 1
        for b in np.unique(number):
            here = np.flatnonzero(number == b)
            block = self._block(int(b))
            local = stream[here] - self._ends[b]
            at = np.searchsorted(block.starts, local, side="right") - 1
            out.shard[here], out.group[here] = block.shard[at], block.group[at]
            out.sample[here] = local - block.starts[at]
            out.row[here] = block.first[at]
            if self.draw is None:
                out.row[here] += out.sample[here]
                continue
            for g in np.unique(at):
                rows = here[at == g]
                kept = self.kept((int(block.shard[g]), int(block.group[g])))
                assert kept is not None
                out.row[rows] += kept[out.sample[rows]]
        return out

    def kept(self, group: Group) -> Numbers | None:
        """Return the drawn rows of a row group of a block in use; None if all rows are samples."""
        if self.draw is None:
            return None
        return np.flatnonzero(np.unpackbits(self._kept[group]))

    def groups(self, window: int) -> set[Group]:
        """Return the row groups that hold a window's samples."""
        first = window * self.window
        last = self.reach(first + self.window)
        found: set[Group] = set()
        while first < last:
            number = int(np.searchsorted(self._ends, first, side="right")) - 1
            block, base = self._block(number), self._ends[number]
            low = np.searchsorted(block.starts, first - base, side="right") - 1
            high = np.searchsorted(block.starts, last - base, side="left")
            shards, groups = block.shard[low:high].tolist(), block.group[low:high].tolist()
            found.update(zip(shards, groups, strict=True))
            first = self._ends[number + 1]
        return found

    # -- helpers ---------------------------------------------------------------------------

    def _permutation(self, kind: str, number: int, size: int) -> Numbers:
        digest = self.dataset.manifest.digest
        return permutation(digest, self.seed, self.epoch, kind, number, size)

    def _before_windows(self, positions: Numbers) -> Numbers:
        """Undo the windows' permutations."""
        if self.window == 1:
            return positions
        stream = np.empty_like(positions)
        window = positions // self.window
        for w in np.unique(window).tolist():
            start = w * self.window
            here = window == w
            stream[here] = start + self._window(w)[positions[here] - start]
        return stream

    def _window(self, number: int) -> Numbers:
        """A window's permutation; those of the next full ones are made and kept with it."""
        numbers, made = self._windows
        if number not in numbers:
            most = max(1, _AT_ONCE // self.window)
            start = number * self.window
            rows = self.reach(start + most * self.window) - start
            size = min(rows, self.window)
            numbers = range(number, number + max(1, rows // self.window))
            digest = self.dataset.manifest.digest
            made = permutations(digest, self.seed, self.epoch, "window", numbers, size)
            self._windows = numbers, made
        return made[number - numbers.start]

    def _block(self, number: int) -> _Block:
        if number not in self._blocks:
            self._blocks[number] = self._read_block(number)
        return self._blocks[number]

    def _read_block(self, number: int) -> _Block:
        shards: list[int] = []
        groups: list[int] = []
        first: list[int] = []
        samples: list[int] = []
        for shard in self._shards[number * BLOCK_SHARDS :][:BLOCK_SHARDS].tolist():
            entry = self.dataset.shards()[shard]
            single = entry.row_groups == 1
            rows = [entry.rows] if single else self.dataset.row_group_rows(shard)
            starts = np.cumsum([0, *rows])
            shards += [shard] * len(rows)
            groups += range(len(rows))
            first += starts[:-1].tolist()
            samples += rows if self.draw is None else self._draw_shard(shard, starts)
        order = self._permutation("row groups", number, len(groups))
        return _Block(
            np.array(shards, np.int64)[order],
            np.array(groups, np.int64)[order],
            np.array(first, np.int64)[order],
            np.cumsum(np.concatenate([[0], np.array(samples, np.int64)[order]])),
        )

    def _draw_shard(self, shard: int, starts: Numbers) -> list[int]:
        """Draw a shard's rows as `curated` does; return how many each row group keeps."""
        assert self.draw is not None
        before, after = (self._beside(shard, step) for step in (-1, 1))
        tables = itertools.chain(before, self.dataset.tables(DECIDING, shard=shard), after)
        parts = [np.empty(0, bool)]
        for table in whole_images(tables):
            picked, drawn = decide(table, self.seed, self.epoch, self.draw)
            parts.append(picked & drawn)
        kept = np.concatenate(parts)
        first, last = (sum(t.num_rows for t in tables) for tables in (before, after))
        kept = kept[first : len(kept) - last]
        if len(kept) != starts[-1]:
            raise IntegrityError(
                f"{self.dataset.storage.url}: shard {shard} gave {len(kept)} rows, its row groups "
                f"have {starts[-1]}; run `dataflows verify` on the dataset"
            )
        counts = []
        for group, (low, high) in enumerate(itertools.pairwise(starts)):
            self._kept[shard, group] = np.packbits(kept[low:high])
            counts.append(int(kept[low:high].sum()))
        return counts

    def _beside(self, shard: int, step: int) -> list[pa.Table]:
        """Rows of a shard's first (step -1) or last (1) image that a cut left in other shards."""
        shards = self.dataset.shards()
        if self.draw != IMAGE_MODE or not shards[shard].rows:
            return []
        edge = 0 if step < 0 else shards[shard].row_groups - 1
        ids = self.dataset.read_row_group(shard, edge, ["image_id"])["image_id"]
        image = ids[0 if step < 0 else -1]
        found: list[pa.Table] = []
        for other in range(shard + step, -1 if step < 0 else len(shards), step):
            for group in range(shards[other].row_groups)[::step]:
                table = self.dataset.read_row_group(other, group, DECIDING)
                part = table.filter(pc.equal(table["image_id"], image))
                if part.num_rows:
                    found.append(part)
                if part.num_rows < table.num_rows:
                    return found[::step]
        return found[::step]
