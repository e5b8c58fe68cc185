"""The committed datasets of a run's output, opened, with a tally of what was read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.page.numbers import size, whole
from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError, StorageError, UsageError
from schemas.manifest import Manifest
from schemas.storage import Storage, storage

DEAD_LETTERS = ".dead_letters"
_MANIFEST = "manifest.json"

# A name from a manifest becomes part of a path.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

# The dataset that a page about the whole run speaks of: the one furthest down that is there.
_HEADS = (
    "curated",
    "matched",
    "balance",
    "matches",
    "pool",
    "fetched",
    "records",
    "tokens",
    "documents",
    "metadata",
    "ngrams",
)


@dataclass
class Tally:
    """Rows and decoded bytes read from each dataset, in the order of first use."""

    rows: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, table: pa.Table) -> None:
        """Count a table that was read."""
        self.rows[name] = self.rows.get(name, 0) + table.num_rows
        self.bytes[name] = self.bytes.get(name, 0) + table.nbytes

    def lines(self, manifests: int) -> tuple[tuple[str, str], ...]:
        """(what, how much) for the foot of the page."""
        files = "manifest" if manifests == 1 else "manifests"
        lines = [(f"{manifests} {files}", "whole")]
        lines += [
            (name, f"{whole(rows)} rows, {size(self.bytes[name])}")
            for name, rows in self.rows.items()
        ]
        return tuple(lines)


@dataclass
class Run:
    """Datasets by name, parents first, and the one that the page is about."""

    root: Storage
    datasets: dict[str, Dataset]
    dead: dict[str, Dataset]
    head: str
    tally: Tally = field(default_factory=Tally)

    def add(self, name: str, location: str) -> None:
        """Bring in a dataset from elsewhere that stages here were made from, with its dead letters.

        Raises InputError if no stage has a parent of that name and digest.
        """
        digests = {
            parent["digest"]
            for dataset in self.datasets.values()
            for parent in dataset.manifest.parents
            if parent["name"] == name
        }
        dataset = open_dataset(location)
        if dataset.manifest.digest not in digests:
            wanted = ", ".join(digest[:12] for digest in sorted(digests)) or "no stage names it"
            raise InputError(
                f"{location} is dataset {dataset.manifest.digest[:12]}, but stages of "
                f"{self.root.url} were made from {name} = {wanted}; give that one"
            )
        self.datasets = {name: dataset, **self.datasets}
        letters = dataset.storage.sibling(f"{dataset.storage.name}{DEAD_LETTERS}")
        if letters.exists(_MANIFEST):
            self.dead = {f"{name}{DEAD_LETTERS}": open_dataset(letters), **self.dead}

    def add_all(self, words: Sequence[str]) -> None:
        """Bring in each NAME=LOCATION. Raises UsageError for a word of another form."""
        for word in words:
            name, equals, location = word.partition("=")
            if not equals:
                raise UsageError(f"--with {word}: give NAME=LOCATION")
            self.add(name, location)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the head."""
        return self.datasets[self.head].manifest

    def get(self, name: str) -> Dataset | None:
        """A dataset of the run, or None if it is not there."""
        return self.datasets.get(name)

    @cached_property
    def stats(self) -> dict[str, dict]:
        """`stats` of every manifest by dataset name."""
        return {name: dict(dataset.manifest.stats) for name, dataset in self.datasets.items()}

    def tables(
        self, name: str, columns: list[str] | None = None, shard: int | None = None
    ) -> Iterator[pa.Table]:
        """Row groups of a dataset, tallied; nothing if it is not there."""
        dataset = self.datasets.get(name) or self.dead.get(name)
        if dataset is None:
            return
        for table in dataset.tables(columns=columns, shard=shard):
            self.tally.add(name, table)
            yield table

    def tables_of(
        self, name: str, column: str, values: list[str], columns: list[str]
    ) -> Iterator[pa.Table]:
        """Row groups that can hold one of `values` in `column` (and other rows besides)."""
        dataset = self.datasets.get(name)
        if dataset is None or not values:
            return
        for shard in dataset.shards():
            with dataset.storage.open_input(shard.file) as file:
                reader = pq.ParquetFile(file)
                for group in admitted(reader.metadata, column, values):
                    table = reader.read_row_group(group, columns=columns)
                    self.tally.add(name, table)
                    yield table

    def take(
        self, name: str, shard: int, rows: np.ndarray | Sequence[int], columns: list[str]
    ) -> pa.Table:
        """Some rows of one shard, tallied."""
        table = self.datasets[name].take(shard, rows, columns)
        self.tally.add(name, table)
        return table


def admitted(footer: pq.FileMetaData, column: str, values: Sequence[str | bytes]) -> list[int]:
    """Numbers of the row groups whose minimum and maximum of a column admit one of `values`."""
    paths = [footer.schema.column(i).path for i in range(footer.num_columns)]
    position = paths.index(column)
    found = []
    for group in range(footer.num_row_groups):
        limits = footer.row_group(group).column(position).statistics
        known = limits is not None and limits.has_min_max
        if not known or any(limits.min <= value <= limits.max for value in values):
            found.append(group)
    return found


def open_run(location: str) -> Run:
    """Open a run's output, or one dataset together with those of its ancestors that lie beside it.

    Raises InputError if nothing committed is there.
    """
    root = storage(location)
    one = root.exists(_MANIFEST)
    found = _with_ancestors(root) if one else dataset_places(location)
    opened = {name: open_dataset(store) for name, store in found.items()}
    head = root.name if one else ""
    dead = {n: d for n, d in opened.items() if n.endswith(DEAD_LETTERS) and n != head}
    main = {n: d for n, d in opened.items() if n not in dead} or opened
    depth = depths(main)
    order = sorted(main, key=lambda name: (depth[name], name))
    known = (name for name in _HEADS if name in main)
    return Run(root, {n: main[n] for n in order}, dead, head or next(known, order[-1]))


def dataset_places(location: str) -> dict[str, Storage]:
    """The dataset at a location, or all that lie right below it; InputError if there is none."""
    root = storage(location)
    if root.exists(_MANIFEST):
        return {root.name: root}
    found = {name: root.at(name) for name in _names(root)}
    if not found:
        raise InputError(
            f"{location} holds no committed dataset (no manifest.json in it or right below it); "
            "give the output= of a run, or one dataset"
        )
    return found


def _names(root: Storage) -> list[str]:
    """Names of the committed datasets right below a directory; one flat listing, no walk."""
    if root.is_local:
        path = Path(root.url)
        if not path.is_dir():
            raise InputError(
                f"{root.url} is not a directory; give the output= of a run, or one dataset"
            )
        found = [entry.name for entry in os.scandir(path) if entry.is_dir()]
    else:
        import fsspec

        try:
            filesystem, start = fsspec.core.url_to_fs(root.url, **json.loads(root.options))
            found = [
                str(item["name"]).rstrip("/").rsplit("/", 1)[-1]
                for item in filesystem.ls(start, detail=True)
                if item["type"] == "directory"
            ]
        except FileNotFoundError:
            found = []
        except OSError as error:
            raise StorageError(
                f"cannot list {root.url}: {error}; check the address and the permissions"
            ) from error
    return [
        name
        for name in sorted(found)
        if not name.startswith(".") and root.at(name).exists(_MANIFEST)
    ]


def _with_ancestors(root: Storage) -> dict[str, Storage]:
    """A dataset and, from beside it, each ancestor whose digest is the one recorded."""
    found = {root.name: root}
    todo = [open_dataset(root).manifest]
    while todo:
        for parent in todo.pop().parents:
            if parent["name"] in found or not _PLAIN.fullmatch(parent["name"]):
                continue
            place = root.sibling(parent["name"])
            if not place.exists(_MANIFEST):
                continue
            manifest = open_dataset(place).manifest
            if manifest.digest == parent["digest"]:
                found[parent["name"]] = place
                todo.append(manifest)
    return found


def depths(datasets: dict[str, Dataset]) -> dict[str, int]:
    """The longest way from each dataset up to one without a parent here."""
    found: dict[str, int] = {}

    def visit(name: str, path: frozenset[str]) -> int:
        if name not in found:
            above = [
                parent["name"]
                for parent in datasets[name].manifest.parents
                if parent["name"] in datasets and parent["name"] not in path
            ]
            found[name] = max((visit(parent, path | {name}) + 1 for parent in above), default=0)
        return found[name]

    for name in datasets:
        visit(name, frozenset({name}))
    return found
