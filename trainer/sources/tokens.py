"""Token data as training samples: sequences of T tokens from one committed dataset or from a mixture.

Sample k of a run is a pure function of (datasets, seed, settings, k). Which source it comes from is
said by `trainer.packing.mixture`, which parts of which documents it has by the source's packing. Each
source counts its own sequences and epochs: a small one with a large weight is read several times.

A batch of n sequences: ``input_ids``, ``labels`` (the token after each input, -100 where none counts)
and ``position_ids`` int64 [n, T]; ``segments`` int32 [n, T], the ordinal of the document in its
sequence, -1 for padding. With ``document_mask`` (default) positions begin again with each document and
the step from one document to the next is not counted. Without it a sequence is one segment at positions
0 to T - 1, as in papers whose documents saw one another.

Weights and schedules count the T places of a sequence, which for best-fit packing include padding.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.dataset import Dataset, open_dataset
from schemas.errors import UsageError
from trainer.config import RunConfig
from trainer.packing.best_fit import BestFit
from trainer.packing.concatenate import Concatenated
from trainer.packing.lengths import TRAIN, Lengths
from trainer.packing.mixture import LARGEST, Mixture
from trainer.packing.parts import Numbers, Packing
from trainer.packing.parts import Parts as Pieces
from trainer.packing.sequences import Arrays, Block, Sequences
from trainer.packing.tokens import Alphabet, RowGroups
from trainer.protocols import Batch, Parts, Positions
from trainer.sources.token_checks import check_model, check_tokenizers

if TYPE_CHECKING:
    from trainer.teacher.cached import Cached

_IDS = ("doc_id", "source", "file", "position")
_PACKINGS: dict[str, Callable[..., Packing]] = {"concatenate": Concatenated, "best_fit": BestFit}
_WINDOWS = 2  # of row groups in memory: loader threads cross from one to the next in turns


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Part(_Strict):
    """A source of a mixture: ``{path: out/web/tokens, weight: 0.7}``."""

    path: str = Field(description="a committed dataset of tokens")
    weight: float = Field(ge=0, description="share of the tokens, relative to the others'")


class Change(_Strict):
    """Other weights from a token of the run on: ``{tokens: 1000000, weights: [0.5, 0.5]}``."""

    tokens: int = Field(gt=0, description="seen before; rounded up to a whole sequence")
    weights: list[Annotated[float, Field(ge=0)]] = Field(description="one for each part of mix")


class Settings(_Strict):
    """``data: {name: tokens, path: out/tokens, sequence_length: 2048, ...}``."""

    path: str | None = Field(None, description="a committed dataset of tokens, such as out/tokens")
    mix: list[Part] = Field(
        default_factory=list, max_length=LARGEST, description="several, with weights, in its place"
    )
    schedule: list[Change] = Field(
        default_factory=list, description="weights of mix that change after so many tokens"
    )
    sequence_length: int = Field(ge=1, lt=1 << 30, description="tokens of a sequence")
    packing: Literal["concatenate", "best_fit"] = Field(
        "concatenate", description="cut the shuffled stream, or fit whole documents and pad"
    )
    document_mask: bool = Field(True, description="documents of a sequence do not see one another")
    split: str = Field(TRAIN, description="train or validation")
    window: int = Field(8, ge=1, description="row groups (of 14 MB at most) shuffled together")

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if (self.path is None) == (not self.mix):
            raise ValueError("give exactly one of data.path= and data.mix=")
        if self.schedule and not self.mix:
            raise ValueError("data.schedule= changes the weights of data.mix=, which is not given")
        for change in self.schedule:
            if len(change.weights) != len(self.mix):
                raise ValueError(
                    f"data.schedule: {len(change.weights)} weights from token {change.tokens} on; "
                    f"data.mix has {len(self.mix)} parts: give one weight for each"
                )
        tokens = [change.tokens for change in self.schedule]
        if any(a >= b for a, b in itertools.pairwise(tokens)):
            raise ValueError(f"data.schedule: tokens are {tokens}; give them in ascending order")
        return self


@dataclass
class _Origin:
    """One dataset of the source; ``begun``: epoch and window that were last read ahead; ``answers``: of a
    teacher, if batches have them."""

    dataset: Dataset
    lengths: Lengths
    packing: Packing
    sequences: Sequences
    groups: RowGroups
    begun: tuple[int, int] | None = None
    answers: Cached | None = None

    def read_ahead(self, ordinal: int) -> None:
        """Begin to read the window after that of a sequence of the run, when it is time to."""
        epoch, sequence = divmod(ordinal, self.packing.sequences)
        window = self.packing.following(epoch, sequence)
        if window is not None and window != self.begun:
            self.begun = window
            self.groups.ahead(self.packing.row_groups(*window))


class Tokens:
    """See the module. Any number of threads may call it.

    ``sequence``: T; ``document_mask``: that of the settings; ``dataset``: only without a mixture.
    """

    dataset: Dataset

    def __init__(self, settings: Settings, seed: int) -> None:
        """Open datasets and their indexes, which are built if they are not there.

        Errors: InputError for what is no token data, UsageError for settings that do not fit it, and
        what `Lengths.of` and `BestFit` raise.
        """
        self.settings = settings
        self.sequence = settings.sequence_length
        self.document_mask = settings.document_mask
        self._lock = threading.Lock()
        mix = settings.mix or [Part(path=str(settings.path), weight=1)]
        self._origins = [_origin(one.path, settings, seed) for one in mix]
        changes = [(0, [one.weight for one in mix])]
        changes += [(-(-c.tokens // self.sequence), c.weights) for c in settings.schedule]
        # Of changes in one sequence the last counts.
        self.mixture = Mixture(sorted(dict(changes).items()))
        digests = [one.dataset.manifest.digest for one in self._origins]
        if settings.mix:
            self.digest = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
        else:
            self.digest = digests[0]
            self.dataset = self._origins[0].dataset

    def beside(self, answers: Sequence[Cached]) -> None:
        """Let batches also have what a teacher said after each token (`trainer.teacher.cached`).

        UsageError for answers to other token data, or to another split.
        """
        for one in self._origins:
            digest = one.dataset.manifest.digest
            one.answers = next((a for a in answers if a.of == digest), answers[0])
            one.answers.open(one.dataset, one.lengths, self.settings.split)

    def samples(self, epochs: float) -> int:
        """Return how many sequences the first ``epochs`` epochs have.

        An epoch of a mixture has as many as one epoch of each of its sources, in the mixture's shares:
        of some sources more than all, of others not all (`passes`).
        """
        return int(epochs * sum(one.packing.sequences for one in self._origins))

    def passes(self, samples: int) -> list[float]:
        """Return the epochs of each source in the first ``samples`` sequences."""
        counts = self.mixture.counts(samples)
        return [n / one.packing.sequences for n, one in zip(counts, self._origins, strict=True)]

    def summary(self, samples: int) -> list[str]:
        """Return lines for people: each source's tokens, packing and passes in so many samples."""
        found = []
        for one, passes in zip(self._origins, self.passes(samples), strict=True):
            packing, url = one.packing, one.dataset.storage.url
            places = packing.sequences * self.sequence
            found.append(
                f"  {url}: {places - packing.padding:,} {self.settings.split} tokens an epoch in "
                f"{packing.sequences:,} sequences of {self.sequence:,} "
                f"({packing.padding / places:.2%} padding, {packing.unused:,} tokens left out), "
                f"{passes:.2f} epochs"
            )
        if not self.document_mask:
            found.append("  document_mask=false: documents of a sequence see one another")
        return found

    def batch(self, positions: Positions) -> Batch:
        """Return ``input_ids``, ``labels``, ``position_ids`` and ``segments`` (see the module).

        Errors: UsageError for a position below 0, and what `RowGroups` raises.
        """
        import torch

        at = np.asarray(positions, np.int64)
        blocks = self._blocks(at, ahead=True)
        made = [
            (rows, block.arrays(first, end, one.groups, self.document_mask))
            for rows, one, block, first, end in blocks
        ]
        found = dict(vars(Arrays.joined(made, self.sequence)))
        said = [
            (rows, one.answers.at(block.parts.of_range(first, end), end - first))
            for rows, one, block, first, end in blocks
            if one.answers
        ]
        for name in said[0][1] if said else ():
            here = np.concatenate([more[name] for _, more in said])
            found[name] = here[np.argsort(np.concatenate([rows for rows, _ in said]))]
        return {name: torch.from_numpy(array) for name, array in found.items()}

    def places(self, positions: Positions) -> list[dict[str, Any]]:
        """Return where samples lie: position, epoch and sequence in it, of a mixture the dataset, and
        ``parts``, in order: shard, file, row group, row of the shard, first token and tokens (the
        last label included); ``ids``: those of each part's document, which lead to its source."""
        at = np.asarray(positions, np.int64)
        found: list[dict[str, Any]] = [{} for _ in at]
        for rows, one, block, first, end in self._blocks(at, ahead=False):
            parts = block.parts.of_range(first, end).without_padding()
            names = [name for name in _IDS if name in one.dataset.schema.names]
            ids = _ids(one, parts.group, parts.row, names)
            _, ordinal = self.mixture.locate(at[rows])
            for row, n in zip(rows.tolist(), ordinal.tolist(), strict=True):
                epoch, sequence = divmod(n, one.packing.sequences)
                found[row] = {"position": int(at[row]), "epoch": epoch, "sequence": sequence}
                if self.settings.mix:
                    found[row]["dataset"] = one.dataset.storage.url
                found[row] |= {"parts": [], "ids": {name: [] for name in names}}
            for i, row in enumerate(rows[parts.sequence].tolist()):
                found[row]["parts"].append(_place(one, parts, i))
                for name in names:
                    found[row]["ids"][name].append(ids[i][name])
        return found

    def alphabets(self) -> list[tuple[Dataset, Alphabet]]:
        """Return the datasets, and what their token ids are."""
        return [(one.dataset, one.groups.alphabet) for one in self._origins]

    # -- helpers ---------------------------------------------------------------------------

    def _blocks(
        self, at: Numbers, *, ahead: bool
    ) -> list[tuple[Numbers, _Origin, Block, int, int]]:
        """Where positions are: which of them, source, block, first and end in it; ``ahead``: begin to
        read what comes after them."""
        if len(at) and at.min() < 0:
            raise UsageError(f"there is no sample {int(at.min())}: positions start at 0")
        source, ordinal = self.mixture.locate(at)
        found = []
        with self._lock:
            for number, one in enumerate(self._origins):
                rows = np.flatnonzero(source == number) if self.settings.mix else np.arange(len(at))
                if not len(rows):
                    continue
                here = ordinal[rows]
                if ahead:
                    one.read_ahead(int(here[-1]))
                for which, block, first, end in one.sequences.of(here):
                    found.append((rows[which], one, block, first, end))
        return found


def build(settings: Settings, config: RunConfig, parts: Parts) -> Tokens:
    """Return the source of a run.

    UsageError if the model has fewer positions than a sequence or fewer tokens than the data, if the run
    has another tokenizer than the data, or if parts of a mixture have different ones; and the errors of
    `Tokens`. Without a model and tokenizer in ``parts`` nothing of that is checked.
    """
    source = Tokens(settings, config.seed)
    check_model(source, getattr(parts.model, "config", None))
    check_tokenizers(source, parts.tokenizer)
    return source


def _origin(path: str, settings: Settings, seed: int) -> _Origin:
    dataset = open_dataset(path)
    lengths = Lengths.of(dataset)
    code = lengths.code(settings.split, dataset.storage.url)
    packing = _PACKINGS[settings.packing](
        lengths, code, dataset.manifest.digest, seed, settings.sequence_length, settings.window
    )
    groups = RowGroups(dataset, lengths, _WINDOWS * settings.window)
    sequences = Sequences(packing, settings.sequence_length)
    return _Origin(dataset, lengths, packing, sequences, groups)


def _ids(one: _Origin, group: Numbers, row: Numbers, names: list[str]) -> list[dict[str, Any]]:
    """Ids of documents as JSON values: one dict a part."""
    found: list[dict[str, Any]] = [{} for _ in group]
    for number in np.unique(group).tolist():
        here = np.flatnonzero(group == number)
        place = int(one.lengths.shard[number]), int(one.lengths.group[number])
        table = one.dataset.read_row_group(*place, names).take(row[here])
        for i, ids in zip(here.tolist(), table.to_pylist(), strict=True):
            found[i] = {k: v.hex() if isinstance(v, bytes) else v for k, v in ids.items()}
    return found


def _place(one: _Origin, parts: Pieces, i: int) -> dict[str, Any]:
    """Where a part lies; its row counts in the shard."""
    number = int(parts.group[i])
    shard = int(one.lengths.shard[number])
    before = int(
        one.lengths.first[number] - one.lengths.first[number - int(one.lengths.group[number])]
    )
    return {
        "shard": shard,
        "file": one.dataset.shards()[shard].file,
        "group": int(one.lengths.group[number]),
        "row": before + int(parts.row[i]),
        "start": int(parts.start[i]),
        "tokens": int(parts.length[i]),
    }
