"""Whole documents of a split, in the order of the dataset: what evaluations read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from schemas.dataset import Dataset
from trainer.packing.lengths import VALIDATION, Lengths
from trainer.packing.tokens import RowGroups, Tokens


@dataclass(frozen=True)
class Document:
    """A document: its id, source, and tokens (uint16[n] or uint32[n], the end of text last if the
    dataset has one)."""

    doc_id: bytes
    source: str
    tokens: Tokens


def documents(dataset: Dataset, split: str = VALIDATION) -> Iterator[Document]:
    """Yield the documents of a split that have tokens, in order; holds one row group.

    The tokens are views into the row group: copy what outlives it. Errors: UsageError if there is no
    token of that split, and those of `Lengths.of` and of reading.
    """
    lengths = Lengths.of(dataset)
    code = lengths.code(split, dataset.storage.url)
    groups = RowGroups(dataset, lengths, 1)
    for number in np.flatnonzero(lengths.tokens[:, code]):
        at = np.array([number])
        rows = lengths.of_groups(at, code).row
        tokens = groups.documents([int(number)])[int(number)]
        names = dataset.read_row_group(
            int(lengths.shard[number]), int(lengths.group[number]), ["doc_id", "source"]
        )
        ids, sources = names["doc_id"].to_pylist(), names["source"].to_pylist()
        for row in rows.tolist():
            yield Document(ids[row], sources[row], tokens[row])
