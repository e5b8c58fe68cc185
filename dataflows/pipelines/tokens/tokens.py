"""Job: documents that stay, to token ids; train rows in shards of their own before validation rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from curation.text.documents import TRAIN, VALIDATION
from curation.text.tokenising import BLOB, Facts, digest_of, load_tokenizer, tokenise, unknown_bytes
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.tokens.staying import Gone, gate, staying
from dataflows.pipelines.tokens.warned import Warned
from dataflows.pipelines.tokens.with_blob import Carried, RunWithBlob
from dataflows.transforms.reading import DatasetUnits, Ref
from dataflows.transforms.sink import Sink
from schemas.errors import InputError
from schemas.step import Outcome

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_SHARDS = 32
"""Shards of documents that one unit reads for their validation rows, at most."""

_COLUMNS = ["doc_id", "split", "source", "text", "file", "position"]


@dataclass(frozen=True)
class _Splits:
    """Units of train rows, one a shard of documents, then those of validation rows.

    A small share of many shards goes into one unit, so that its shards are not tiny.
    """

    documents: Ref
    validation: float

    def __call__(self) -> Iterator[Unit]:
        shards = list(DatasetUnits((self.documents,))())
        for unit in shards:
            yield Unit(f"{TRAIN}-{unit.name}", {"split": TRAIN, "shards": [unit.args]})
        if self.validation <= 0:
            return
        group = max(1, min(MOST_SHARDS, int(1 / self.validation)))
        for first in range(0, len(shards), group):
            args = [unit.args for unit in shards[first : first + group]]
            name = f"{VALIDATION}-{shards[first].name}"
            yield Unit(name, {"split": VALIDATION, "shards": args})


@lru_cache(maxsize=1)
def _tokenizer(carried: Carried) -> Tokenizer:
    path = carried.local()
    return load_tokenizer(path.read_bytes(), str(path))


@lru_cache(maxsize=1)
def _unknown(carried: Carried) -> tuple[int, ...]:
    return tuple(unknown_bytes(_tokenizer(carried)))


@dataclass(frozen=True)
class _Tokenise:
    """The step over one split of shards of documents."""

    gone: Gone
    tokenizer: Carried
    facts: Facts
    append_eos: bool
    parse_special: bool

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        for args in unit.args["shards"]:
            shard = Unit(unit.name, args)
            for kept in staying(shard, unit.args["split"], self.gone, _COLUMNS):
                made = tokenise(
                    kept.table,
                    _tokenizer(self.tokenizer),
                    self.facts,
                    append_eos=self.append_eos,
                    parse_special=self.parse_special,
                    unknown=_unknown(self.tokenizer),
                )
                made.ledger.remove("document", "in")
                kept.ledger.remove("document", "out")
                made.ledger.merge(kept.ledger)
                yield made


def tokens(context: JobContext, sink: Sink) -> Warned:
    """Shard by shard, without a shuffle. Raises CheckFailed if the gate of evaluation sets fails."""
    gate(context)
    config = context.config
    tokenizer = Carried.store(sink, BLOB, _tokenizer_path(context))
    step = _Tokenise(
        Gone.of(context),
        tokenizer,
        Facts(**config["tokens"]),
        config["append_eos"],
        config["parse_special"],
    )
    units = _Splits(Ref.of(context.inputs["documents"]), config["validation"])
    return Warned(RunWithBlob(units, step, tokenizer, sink), config["validation"])


def _tokenizer_path(context: JobContext) -> Path:
    """The tokenizer.json: trained in this run, or the user's file, if it is still the same."""
    if "tokenizer" in context.inputs:
        return context.inputs["tokenizer"].blob(BLOB)
    path = Path(str(context.stage.runtime["tokenizer"]))
    if digest_of(path.read_bytes()) != context.config["tokenizer"]:
        raise InputError(f"{path} changed while this command started: run it again")
    return path
