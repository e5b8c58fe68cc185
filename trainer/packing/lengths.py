"""The index of a token dataset: length and split of every document, in the order of its rows.

Five bytes a document and some numbers a row group, mapped read-only: 50 MB at 10 million documents. It
depends on the dataset alone, so all runs on it share one. It is built from the columns ``length`` and
``split`` in memory of one row group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.dataset import Dataset
from schemas.errors import InputError, IntegrityError, UsageError
from schemas.text_schemas import TOKENS
from trainer.packing import cache

FORMAT = 1
"""Version of the index's layout; another one is built anew."""

TRAIN, VALIDATION = "train", "validation"

Numbers = npt.NDArray[np.int64]
_ONE_TABLE = 1 << 62


@dataclass(frozen=True)
class RowGroup:
    """What the index takes of a row group: int32[n] lengths in tokens, uint8[n] number of the split."""

    shard: int
    group: int
    lengths: npt.NDArray[np.int32]
    splits: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Documents:
    """Documents, int64[d] each: number of the row group, row in it, tokens of the row group before the
    document's, and its own."""

    group: Numbers
    row: Numbers
    offset: Numbers
    length: Numbers


@dataclass(frozen=True)
class Lengths:
    """Documents by row group (numbered over all shards): see the module.

    ``shard``, ``group``: int64[g], where a row group lies; ``first``: int64[g + 1], rows before each;
    ``tokens``, ``documents``: int64[g, s] of each split in ``splits``; ``lengths`` and ``codes`` (index
    in ``splits``) of every row.
    """

    shard: Numbers
    group: Numbers
    first: Numbers
    tokens: Numbers
    documents: Numbers
    splits: tuple[str, ...]
    lengths: npt.NDArray[np.int32]
    codes: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, dataset: Dataset) -> Lengths:
        """Open a dataset's index; builds it if it is not there.

        Errors: InputError if it is no token dataset or a length is below 0, IntegrityError if its
        tokens are not as many as its manifest says, StorageError for the cache.
        """
        check_schema(dataset)
        facts = {"format": FORMAT, "dataset": dataset.manifest.digest}

        def fill(folder: Path) -> None:
            names: list[str] = []
            build(folder, row_groups(dataset, names), names)
            _check_totals(dataset, cls.opened(folder))

        return cls.opened(cache.built("lengths", facts, fill))

    @classmethod
    def opened(cls, folder: Path) -> Lengths:
        """Map an index that `build` wrote."""
        names = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
        table = np.load(folder / "groups.npy")
        rest, splits = table[:, 3:], len(names)
        return cls(
            table[:, 0],
            table[:, 1],
            np.concatenate([[0], np.cumsum(table[:, 2])]),
            rest[:, :splits],
            rest[:, splits:],
            tuple(names),
            _mapped(folder / "lengths.i32", np.int32),
            _mapped(folder / "codes.u8", np.uint8),
        )

    def code(self, split: str, url: str) -> int:
        """Return the number of a split. UsageError if the dataset has no token of it."""
        here = [n for i, n in enumerate(self.splits) if self.tokens[:, i].sum()]
        if split not in here:
            raise UsageError(
                f"data.split={split}: {url} has no token of that split; it has "
                f"{' and '.join(here) or 'no tokens at all'}"
            )
        return self.splits.index(split)

    def of_groups(self, groups: Numbers, code: int) -> Documents:
        """Return the documents of a split that have tokens, row group by row group in the order given."""
        parts = [np.empty((4, 0), np.int64)]
        for g in groups.tolist():
            lengths = self.of_group(g)
            codes = self.codes[int(self.first[g]) : int(self.first[g + 1])]
            rows = np.flatnonzero((codes == code) & (lengths > 0))
            offsets = np.cumsum(lengths) - lengths
            parts.append(np.stack([np.full(len(rows), g), rows, offsets[rows], lengths[rows]]))
        return Documents(*np.concatenate(parts, axis=1))

    def of_group(self, group: int) -> Numbers:
        """Return the lengths of all rows of a row group: int64[n]."""
        low, high = int(self.first[group]), int(self.first[group + 1])
        return self.lengths[low:high].astype(np.int64)


def check_schema(dataset: Dataset) -> None:
    """InputError if a dataset is not one of tokens."""
    if dataset.spec.name != TOKENS.name:
        raise InputError(
            f"{dataset.storage.url} is {dataset.spec.name}, not {TOKENS.name}: give the tokens of "
            "`dataflows run tokens`, as in OUTPUT/tokens"
        )


def row_groups(dataset: Dataset, names: list[str]) -> Iterator[RowGroup]:
    """Read the columns ``split`` and ``length`` of every row group; fills ``names`` of the splits."""
    for shard in range(len(dataset.shards())):
        tables = dataset.tables(["split", "length"], shard=shard, max_bytes=_ONE_TABLE)
        for group, table in enumerate(tables):
            lengths = table["length"].to_numpy()
            if len(lengths) and lengths.min() < 0:
                raise InputError(
                    f"{dataset.storage.path(dataset.shards()[shard].file)} has a document of "
                    f"{lengths.min()} tokens; lengths start at 0: build the dataset anew"
                )
            yield RowGroup(shard, group, lengths, _codes(table["split"], names))


def build(folder: Path, groups: Iterable[RowGroup], names: list[str]) -> None:
    """Write the index of row groups; ``names`` may grow while they come."""
    rows: list[list[int]] = []
    sums: list[tuple[Numbers, Numbers]] = []
    with open(folder / "lengths.i32", "wb") as lengths, open(folder / "codes.u8", "wb") as codes:
        for one in groups:
            lengths.write(one.lengths.astype("<i4").tobytes())
            codes.write(one.splits.tobytes())
            size = len(names)
            tokens = np.bincount(one.splits, weights=one.lengths, minlength=size).astype(np.int64)
            sums.append((tokens, np.bincount(one.splits, minlength=size)))
            rows.append([one.shard, one.group, len(one.lengths)])
    table = np.zeros((len(rows), 3 + 2 * len(names)), np.int64)
    table[:, :3] = np.array(rows, np.int64).reshape(-1, 3)
    for line, (tokens, documents) in zip(table, sums, strict=True):
        line[3 : 3 + len(tokens)] = tokens
        line[3 + len(names) :][: len(documents)] = documents
    np.save(folder / "groups.npy", table)
    (folder / "splits.json").write_text(json.dumps(names), encoding="utf-8")


def _codes(column: pa.ChunkedArray, names: list[str]) -> npt.NDArray[np.uint8]:
    """Number of each row's split in ``names``, which gets the new ones."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    here = encoded.dictionary.to_pylist()
    names += [name for name in here if name not in names]
    numbers = np.array([names.index(name) for name in here], np.uint8)
    return numbers[encoded.indices.to_numpy()] if len(here) else np.empty(0, np.uint8)


def _check_totals(dataset: Dataset, found: Lengths) -> None:
    recorded: dict[str, Any] = dataset.manifest.stats.get("tokens", {})
    for name, tokens in zip(found.splits, found.tokens.sum(axis=0).tolist(), strict=True):
        if name in recorded and recorded[name] != tokens:
            raise IntegrityError(
                f"{dataset.storage.url}: the lengths of split {name} add up to {tokens} tokens, its "
                f"manifest says {recorded[name]}: run `dataflows verify` on it, or build it anew"
            )


def _mapped(path: Path, kind: type) -> Any:
    if path.stat().st_size == 0:
        return np.empty(0, kind)
    return np.memmap(path, np.dtype(kind).newbyteorder("<"), "r")
