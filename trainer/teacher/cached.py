"""Reading a teacher's kept answers beside the token data that they are of.

The first use on a machine unpacks a dataset of logits into three flat files (ids, log-probabilities, tails,
token after token), which are mapped: a batch then costs what its own answers weigh. They take k (bytes
of an id + 4) + 4 bytes a token and lie where the indexes of token data do (`trainer.packing.cache`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError, IntegrityError, UsageError
from schemas.storage import storage
from schemas.text_schemas import LOGITS
from trainer.packing import cache
from trainer.packing.lengths import Lengths
from trainer.packing.parts import PADDING, Numbers, Parts
from trainer.shards import Shards
from trainer.teacher.layout import Layout, first_tokens

KEPT = "logits.json"
"""In a run's directory: digests of the logits that it learns from."""

FORMAT = 1
"""Version of the flat files; another one is made anew."""


class Cached:
    """Answers to the tokens of one dataset and split. Any number of threads."""

    def __init__(self, place: str) -> None:
        """Open what ``trainer logits`` committed. InputError if it is something else."""
        self.dataset: Dataset = open_dataset(place)
        if self.dataset.spec.name != LOGITS.name:
            raise InputError(
                f"{place} is {self.dataset.spec.name}, not {LOGITS.name}: give what `trainer logits` made"
            )
        head = self.dataset.manifest
        self.place, self.digest, self.config = place, head.digest, head.config
        self.of = str(head.parents[0]["digest"])
        """Digest of the token data."""
        self.k, self.vocabulary = int(self.config["top_k"]), int(self.config["vocabulary"])
        self.temperature, self.split = float(self.config["temperature"]), str(self.config["split"])

    def open(self, tokens: Dataset, lengths: Lengths, split: str) -> None:
        """Say which token data will be asked for. UsageError if the answers are of another one."""
        if split != self.split:
            raise UsageError(
                f"objective.logits: {self.place} has answers to split {self.split}, and data.split={split}: "
                f"make them with `trainer logits ... split={split}`"
            )
        if self.of != (now := tokens.manifest.digest):
            raise UsageError(
                f"objective.logits: {self.place} has answers to token data with digest {self.of[:12]}, and "
                f"{tokens.storage.url} has {now[:12]}: make them anew with `trainer logits TEACHER "
                f"path={tokens.storage.url} output=...`, or give the data that they are of"
            )
        self._tokens, self._lengths = tokens, lengths

    def at(self, parts: Parts, sequences: int) -> dict[str, np.ndarray]:
        """Return the answers to parts (padding included) of sequences of T + 1 tokens each, the last left
        out: ``teacher_ids`` int32 [n, T, k], ``teacher_log_probs`` fp32 [n, T, k], ``teacher_tail`` fp32
        [n, T]. Padding has those of some other token."""
        ids, log_probs, tail, first, rows = self._files
        padding = parts.group == PADDING
        row = np.where(padding, 0, rows[np.where(padding, 0, parts.group)] + parts.row)
        begin = np.where(padding, 0, first[row] + parts.start)
        within = np.arange(int(parts.length.sum())) - np.repeat(
            np.cumsum(parts.length) - parts.length, parts.length
        )
        flat = np.repeat(begin, parts.length) + np.where(
            np.repeat(padding, parts.length), 0, within
        )
        flat = flat.reshape(sequences, -1)[:, :-1]
        return {
            "teacher_ids": ids[flat].astype(np.int32),
            "teacher_log_probs": log_probs[flat],
            "teacher_tail": tail[flat],
        }

    @functools.cached_property
    def _files(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, Numbers, Numbers]:
        code = self._lengths.code(self.split, self._tokens.storage.url)
        facts = {"format": FORMAT, "dataset": self.digest}
        folder = cache.built("logits", facts, lambda folder: self._unpack(folder, code))
        width = int(self.config["bytes"])
        ids, log_probs, tail = (
            np.memmap(folder / name, kind, "r")
            for name, kind in (("ids", f"<u{width}"), ("log_probs", "<f4"), ("tail", "<f4"))
        )
        first = first_tokens(self._lengths, code)
        shape = (-1, self.k)
        return ids.reshape(shape), log_probs.reshape(shape), tail, first, self._lengths.first

    def _unpack(self, folder: Path, code: int) -> None:
        layout = Layout.of(self._lengths, code, int(self.config["context"]))
        row = 0
        with (
            open(folder / "ids", "wb") as ids,
            open(folder / "log_probs", "wb") as log_probs,
            open(folder / "tail", "wb") as tail,
        ):
            for table in self._tables():
                end = row + table.num_rows
                lengths = table["length"].to_numpy().astype(np.int64)
                if not np.array_equal(lengths, layout.length[row:end]):
                    raise self._contradicts(
                        "the lengths of its rows are not those of the token data"
                    )
                for file, name, size in (
                    (ids, "ids", self.k * int(self.config["bytes"])),
                    (log_probs, "log_probs", self.k * 4),
                    (tail, "tail", 4),
                ):
                    for value, length in zip(table[name], lengths.tolist(), strict=True):
                        data = value.as_buffer()
                        if data.size != length * size:
                            raise self._contradicts(
                                f"a row of {length} tokens has {data.size} bytes of {name}, not "
                                f"{length * size}"
                            )
                        file.write(data)
                row = end
        if row != len(layout.length):
            raise self._contradicts(
                f"it has {row} rows, and its token data asks for {len(layout.length)}"
            )

    def _tables(self) -> Iterator[pa.Table]:
        shards = Shards(self.dataset)
        for shard in range(len(self.dataset.shards())):
            shards.check({shard})
            yield from self.dataset.tables(["length", "ids", "log_probs", "tail"], shard=shard)

    def _contradicts(self, how: str) -> IntegrityError:
        return IntegrityError(
            f"{self.place}: {how}: make it anew with `trainer logits` in another output="
        )


def opened(places: Sequence[str]) -> list[Cached]:
    """Open datasets of logits. UsageError if they do not fit one another."""
    found = [Cached(place) for place in places]
    for name in ("top_k", "temperature", "vocabulary", "split"):
        for other in found[1:]:
            if other.config[name] != found[0].config[name]:
                raise UsageError(
                    f"objective.logits: {name} is {found[0].config[name]} in {found[0].place} and "
                    f"{other.config[name]} in {other.place}; make them alike with `trainer logits`"
                )
    return found


def keep(found: Sequence[Cached], output: str) -> None:
    """Write down in a run's directory what it learns from, if this process trains.

    UsageError if the run began with other logits, as at a place that was written anew meanwhile.
    """
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    place = storage(output)
    digests = json.dumps([one.digest for one in found]).encode()
    if not place.create(KEPT, digests) and (old := place.read_bytes(KEPT)) != digests:
        raise UsageError(
            f"objective.logits: the run in {output} began with logits {old.decode()}, and these are "
            f"{digests.decode()}: give those that it had, or another output="
        )
