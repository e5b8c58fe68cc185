"""A teacher's likeliest tokens after every token of a dataset, as a committed dataset (schema ``logits``).

The teacher reads documents alone: each from its beginning, in pieces of ``context`` tokens (by default as
many as it has positions), positions from 0 in each piece. A live teacher reads the same of a document
that lies whole in a sequence, and of the pieces of best-fit packing with sequences of ``context`` tokens. Of
a document that concatenation cuts, or another length of sequence, it reads less before a token than here.

Work is done in units of consecutive rows. A finished unit is kept below the output until the commit, so
the same command goes on where it stopped; with ``share=0/4`` to ``3/4`` four processes make one dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.commit import ATTEMPTS, commit
from schemas.dataset import Dataset, file_digest, open_dataset
from schemas.errors import ConflictError, InputError, UsageError
from schemas.ids import id_array
from schemas.ledger import Ledger
from schemas.manifest import KEY, Manifest
from schemas.storage import Storage, storage
from schemas.text_schemas import LOGITS
from schemas.writer import ShardWriter
from trainer import data_tokenizer
from trainer.evaluation.progress import Progress
from trainer.packing.lengths import TRAIN, Lengths
from trainer.packing.tokens import Alphabet, RowGroups
from trainer.protocols import Place
from trainer.teacher.folder import folder_of
from trainer.teacher.layout import Layout

UNIT_BYTES = 14 << 20
"""Of a unit's answers: what is lost at most when the command is stopped."""

_GROUPS_HELD = 2


class Settings(BaseModel):
    """``trainer logits TEACHER path=TOKENS output=DIR top_k=64``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="a committed dataset of tokens, such as out/tokens")
    output: str = Field(description="where the dataset of logits is committed")
    top_k: int = Field(64, ge=1, description="tokens that are kept, at most the vocabulary")
    temperature: float = Field(1.0, gt=0, le=100, description="at which the student is to learn")
    context: int | None = Field(
        None, ge=1, description="tokens read at once (default: the teacher's positions)"
    )
    split: str = Field(TRAIN, description="train or validation")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="in which the teacher computes")
    batch: int = Field(8192, ge=1, description="tokens of a forward pass, padding included")
    share: str = Field("0/1", description="this process's share of the work, 0/4 to 3/4 of four")

    @field_validator("share")
    @classmethod
    def _is_share(cls, value: str) -> str:
        part, mark, parts = value.partition("/")
        if not (mark and part.isdigit() and parts.isdigit() and int(part) < int(parts)):
            raise ValueError(f"{value}: give i/n with i from 0 to n - 1, as 0/4")
        return value


@dataclass
class Result:
    """What a command did: the dataset, or the units that other processes have yet to make."""

    made: int
    missing: int
    manifest: Manifest | None


def cache(teacher: str, settings: Settings, place: Place) -> Result:
    """Make this process's share of the units, and commit the dataset once all are there.

    Errors: UsageError for a teacher of another tokenizer or vocabulary and for settings that do not fit
    it, InputError for what cannot be read, ConflictError if the output holds another dataset.
    """
    work = _Work(teacher, settings)
    output = storage(settings.output)
    if output.exists(KEY):
        found = Manifest.load(output)
        if found.stage_key != work.key:
            raise ConflictError(
                f"{output.url} holds another dataset (digest {found.digest[:12]}), of other data, teacher "
                "or settings: choose another output="
            )
        return Result(0, 0, found)
    part, parts = (int(n) for n in settings.share.split("/"))
    made = 0
    attempts = output.at(ATTEMPTS, work.key)
    mine = [n for n in range(part, len(work.units), parts) if not attempts.exists(_name(n))]
    if mine:
        answers = _Teacher(work, place, sum(work.tokens_of(n) for n in mine))
        for number in mine:
            table = answers.unit(*work.units[number])
            made += attempts.create(_name(number), _packed(table))
    missing = sum(not attempts.exists(_name(n)) for n in range(len(work.units)))
    manifest = None if missing else _commit(work, output, attempts)
    return Result(made, missing, manifest)


class _Work:
    """What is to be done, from settings, lengths and the teacher's configuration."""

    def __init__(self, teacher: str, settings: Settings) -> None:
        from trainer.models.decoder import check_tokenizer
        from trainer.models.decoder_model import check_length, from_folder

        self.settings = settings
        self.dataset: Dataset = open_dataset(settings.path)
        self.lengths = Lengths.of(self.dataset)
        self.alphabet = Alphabet.of(self.dataset)
        code = self.lengths.code(settings.split, self.dataset.storage.url)
        self.folder = folder_of(teacher, "")
        self.model: Any = from_folder(self.folder, {}, hollow=True)
        known = int(self.model.config.vocab_size)
        tokenizer = self.dataset.blob(data_tokenizer.FILE).read_bytes()
        check_tokenizer(data_tokenizer.parse(tokenizer, settings.path), self.folder, known)
        if settings.top_k > known:
            raise UsageError(
                f"top_k={settings.top_k}: the teacher tells {known:,} tokens apart; give {known} at most"
            )
        context = settings.context or int(self.model.config.max_position_embeddings)
        check_length(self.model.config, context, "context= of at most that")
        self.bytes = 2 if known <= 1 << 16 else 4
        self.config: dict[str, Any] = {
            "teacher": _identity(self.folder),
            "top_k": settings.top_k,
            "temperature": settings.temperature,
            "context": context,
            "split": settings.split,
            "precision": settings.precision,
            "vocabulary": known,
            "bytes": self.bytes,
        }
        self.layout = Layout.of(self.lengths, code, context)
        row = settings.top_k * (self.bytes + 4) + 4
        self.units = self.layout.units(UNIT_BYTES // row)
        facts = {"data": self.dataset.manifest.digest, "batch": settings.batch, **self.config}
        self.key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def tokens_of(self, unit: int) -> int:
        """Tokens of a unit."""
        return int(self.layout.length[slice(*self.units[unit])].sum())


class _Teacher:
    """The model and the documents it reads; it tells how many of ``tokens`` it has answered."""

    def __init__(self, work: _Work, place: Place, tokens: int) -> None:
        import torch

        from trainer.models.decoder_model import from_folder

        self._work = work
        self._model: Any = from_folder(work.folder, {})
        dtype = torch.bfloat16 if work.settings.precision == "bf16" else torch.float32
        self._model.eval().requires_grad_(False).to(place.device, dtype)
        self._groups = RowGroups(work.dataset, work.lengths, _GROUPS_HELD)
        self._ids: tuple[int, list[bytes]] = (-1, [])
        self._progress = Progress("tokens", tokens)

    def unit(self, first: int, end: int) -> pa.Table:
        """Return the rows of a unit."""
        layout, settings = self._work.layout, self._work.settings
        pieces = [self._tokens(row) for row in range(first, end)]
        answers: list[tuple[bytes, bytes, bytes]] = [(b"", b"", b"")] * len(pieces)
        for some in _batches([len(p) for p in pieces], settings.batch):
            for i, answer in zip(some, self._answers([pieces[i] for i in some]), strict=True):
                answers[i] = answer
                self._progress.add(len(pieces[i]))  # a unit may take minutes
        columns = [pa.array(column, pa.binary()) for column in zip(*answers, strict=True)]
        rows = slice(first, end)
        return LOGITS.validate(
            pa.table(
                {
                    "doc_id": id_array([self._doc_id(row) for row in range(first, end)]),
                    "start": pa.array(layout.start[rows], pa.int32()),
                    "length": pa.array(layout.length[rows], pa.int32()),
                    **dict(zip(("ids", "log_probs", "tail"), columns, strict=True)),
                }
            )
        )

    def _tokens(self, row: int) -> Any:
        layout = self._work.layout
        group = int(layout.group[row])
        document = self._groups.documents([group])[group][int(layout.row[row])]
        start = int(layout.start[row])
        return document[start : start + int(layout.length[row])]

    def _doc_id(self, row: int) -> bytes:
        layout, lengths = self._work.layout, self._work.lengths
        group = int(layout.group[row])
        if self._ids[0] != group:
            place = int(lengths.shard[group]), int(lengths.group[group])
            table = self._work.dataset.read_row_group(*place, ["doc_id"])
            self._ids = group, table["doc_id"].to_pylist()
        return self._ids[1][int(layout.row[row])]

    def _answers(self, pieces: list[Any]) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Ids, log-probabilities and tails of each piece."""
        import torch

        from trainer.objectives.linear_cross_entropy import ELEMENTS
        from trainer.objectives.top_k_divergence import TopK

        settings = self._work.settings
        ids = np.zeros((len(pieces), max(map(len, pieces))), np.int64)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece)] = piece
        size = max(1, ELEMENTS // (2 * self._work.config["vocabulary"]))
        kind = f"<u{self._work.bytes}"
        with torch.inference_mode():
            # Attention is causal: padding at the end is idle.
            states = self._model.hidden(torch.from_numpy(ids).to(self._model.device))
            for row, piece in enumerate(pieces):
                found = []
                for part in states[row, : len(piece)].split(size):
                    logits = self._model.lm_head(part).float() / settings.temperature
                    found.append(TopK.of(logits.log_softmax(-1), settings.top_k))
                top, values, tail = (
                    torch.cat([getattr(one, name) for one in found]).cpu().numpy()
                    for name in ("ids", "log_probs", "tail")
                )
                if not np.isfinite(values).all():
                    raise InputError(
                        f"{self._work.folder}: its log-probabilities are not finite numbers: give a teacher "
                        "whose weights are finite, or precision=fp32"
                    )
                yield top.astype(kind).tobytes(), values.tobytes(), tail.tobytes()


def _batches(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Pieces by length, so many that the longest times their number is at most ``tokens``."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _commit(work: _Work, output: Storage, attempts: Storage) -> Manifest:
    with ShardWriter(output, LOGITS) as writer:
        for number in range(len(work.units)):
            with pa.ipc.open_file(pa.py_buffer(attempts.read_bytes(_name(number)))) as file:
                writer.write(file.read_all())
    ledger = Ledger()
    rows = len(work.layout.start)
    ledger.add("entry", "created", "derived", rows)
    ledger.add("entry", "out", "", rows)
    tokens = {work.settings.split: int(work.layout.length.sum())}
    parent = work.dataset
    head = Manifest(
        schema={"name": LOGITS.name, "version": LOGITS.version},
        counts=ledger.rows(),
        parents=[{"name": parent.storage.name, "digest": parent.manifest.digest}],
        recipe={"recipe": "logits"},
        config=work.config,
        stage_key=work.key,
        stats={"tokens": tokens},
        run={"inputs": {parent.storage.name: parent.storage.url}},
    )
    return commit(output, head, writer.close())


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue().to_pybytes()


def _name(unit: int) -> str:
    return f"{unit:08}.arrow"


def _identity(folder: str) -> dict[str, str]:
    """Digests of what makes the teacher what it is: its configuration and weights."""
    files = [Path(folder) / "config.json", *sorted(Path(folder).glob("*.safetensors"))]
    return {file.name: file_digest(file) for file in files}
