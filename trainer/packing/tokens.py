"""Tokens of a committed dataset, row group by row group: views of what Parquet decodes to, checked.

A row group is read whole, once, and kept while sequences of its window are asked for. Its shard is
hashed before (`trainer.shards`), the bytes of each document are compared with its length, and the
largest id with the vocabulary.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.dataset import Dataset
from schemas.errors import InputError, IntegrityError
from trainer.packing.lengths import Lengths, Numbers
from trainer.shards import Shards

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Alphabet:
    """What token ids of a dataset are: bytes of each (2 or 4), how many there are, and the id of the
    end of text (None: documents do not end with one)."""

    bytes: int
    vocabulary: int
    eos: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an id."""
        return np.dtype(f"<u{self.bytes}")

    @classmethod
    def of(cls, dataset: Dataset) -> Alphabet:
        """Read it from the manifest's configuration. InputError if it is not there."""
        found: Any = dataset.manifest.config.get("tokens")
        try:
            width, vocabulary, eos = found["bytes"], int(found["vocabulary"]), found.get("eos")
            if width not in (2, 4) or not 0 < vocabulary <= 1 << 8 * width:
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{dataset.storage.url}: its manifest says config.tokens = {found!r}; expected bytes "
                "(2 or 4), vocabulary (at least 1, as many as fit) and eos: build it anew with "
                "`dataflows run tokens`"
            ) from None
        return cls(int(width), vocabulary, eos)


@dataclass(frozen=True)
class Documents:
    """The documents of a row group: tokens one after the other, and the n + 1 places where each begins."""

    tokens: Tokens
    starts: list[int]

    def __getitem__(self, row: int) -> Tokens:
        """Return the tokens of a document."""
        return self.tokens[self.starts[row] : self.starts[row + 1]]


class RowGroups:
    """The row groups of a dataset, the last ``held`` of which stay in memory. Any number of threads.

    One thread of its own reads, so that a window can be read while the one before is used. Those go
    first that were asked for or announced first: the window before.
    """

    def __init__(self, dataset: Dataset, lengths: Lengths, held: int) -> None:
        """``lengths``: the dataset's index. Errors: InputError, as `Alphabet.of`."""
        self.dataset = dataset
        self.alphabet = Alphabet.of(dataset)
        self._lengths = lengths
        self._held = held
        self._shards = Shards(dataset)
        self._kept: OrderedDict[int, Future[Documents]] = OrderedDict()
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tokens")

    def ahead(self, numbers: Numbers) -> None:
        """Begin to read row groups that will be asked for."""
        with self._lock:
            for number in numbers.tolist():
                self._future(number)
                self._kept.move_to_end(number)

    def documents(self, numbers: Iterable[int]) -> dict[int, Documents]:
        """Return row groups by number. IntegrityError for one that contradicts the manifest."""
        with self._lock:
            futures = {number: self._future(number) for number in numbers}
        return {number: future.result() for number, future in futures.items()}

    # -- helpers ---------------------------------------------------------------------------

    def _future(self, number: int) -> Future[Documents]:
        """The reading of a row group, begun if it is not kept or failed before; under the lock."""
        known = self._kept.get(number)
        if known is None or (known.done() and known.exception()):
            self._kept[number] = self._reader.submit(self._read, number)
        while len(self._kept) > self._held:
            self._kept.popitem(last=False)
        return self._kept[number]

    def _read(self, number: int) -> Documents:
        shard, group = int(self._lengths.shard[number]), int(self._lengths.group[number])
        self._shards.check({shard})
        column = self._shards.table(shard, group, ["tokens"])["tokens"].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        _, offsets, data = column.buffers()
        ends = np.frombuffer(offsets, np.int32)[column.offset :][: len(column) + 1].astype(np.int64)
        width = self.alphabet.bytes
        wanted = self._lengths.of_group(number) * width
        if len(wrong := np.flatnonzero(np.diff(ends) != wanted)):
            row = int(wrong[0])
            raise IntegrityError(
                f"{self._named(shard, group, row)} has {ends[row + 1] - ends[row]} bytes of tokens, its "
                f"length is {wanted[row] // width} tokens of {width} bytes: build the dataset anew"
            )
        whole = data[int(ends[0]) : int(ends[-1])] if data is not None else b""
        tokens = np.frombuffer(whole, self.alphabet.dtype)
        found = Documents(tokens, ((ends - ends[0]) // width).tolist())
        if len(tokens) and int(tokens.max()) >= self.alphabet.vocabulary:
            at = int(np.argmax(tokens >= self.alphabet.vocabulary))
            row = bisect.bisect_right(found.starts, at) - 1
            raise IntegrityError(
                f"{self._named(shard, group, row)} has token {int(tokens[at])}, the vocabulary of its "
                f"tokenizer ends at {self.alphabet.vocabulary - 1}: build the dataset anew"
            )
        return found

    def _named(self, shard: int, group: int, row: int) -> str:
        file = self.dataset.storage.path(self.dataset.shards()[shard].file)
        ids = self.dataset.read_row_group(shard, group, ["doc_id"])["doc_id"]
        return f"{file}: document {ids[row].as_py().hex()} (row group {group}, row {row})"
