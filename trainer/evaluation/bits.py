"""Evaluation `bits`: bits per byte of held-out documents, beside an n-gram model and xz.

Bits per byte = (sum over documents of the bits of all their tokens) / (bytes of their texts in
UTF-8, as the tokenizer decodes them). All tokens of a document are paid for, its end of text included:

* The model gets each document alone. Its first token has nothing before it: a model trained with
  documents apart never predicted one, and pays log2(vocabulary); one that saw documents one after the
  other reads an end-of-text token before it (``first``). A document longer than the context is read in
  windows, each ``stride`` tokens after the last: every token is predicted once, with at least context
  - stride tokens before it.
* The n-gram model (`trainer.evaluation.ngram`) has the same tokens, and the training split of the
  same data.
* xz: 8 (size of `xz -9` of the training texts and the held-out ones - that of the training texts
  alone) / bytes of the held-out ones, each text followed by a NUL byte. It looks back 64 MB.

A run on a mixture is scored on the held-out documents of all its parts. The n-gram model and xz read all
training documents into memory; for more than `MOST` tokens they are left out, and a note says so.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError, UsageError

if TYPE_CHECKING:
    from trainer.evaluation.language import LanguageModel

LANGUAGE = True
"""This evaluation is of language models."""

MOST = 100_000_000
"""Training tokens that the n-gram model and xz are made of at most: some 20 GB for five orders."""

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
_Z = 1.959964  # of a 95 % interval


class Settings(BaseModel):
    """Settings of ``trainer eval RUN bits``."""

    model_config = ConfigDict(extra="forbid")

    data: str | None = Field(None, description="a dataset of tokens (default: the run's)")
    split: str = Field("validation", description="of the documents that are scored")
    documents: int | None = Field(
        None, ge=1, description="at most so many, the first (default: all)"
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="tokens a window of a long document adds (default: half the context)",
    )
    first: Literal["auto", "uniform", "eos"] = Field(
        "auto", description="the cost of a first token: see the module"
    )
    ngram: int = Field(5, ge=0, le=8, description="order of the n-gram model beside it; 0: none")
    xz: bool = Field(True, description="also what xz -9 makes of the texts")


def evaluate(loaded: LanguageModel, settings: Settings) -> dict[str, Any]:
    """Score documents; rows are ``model``, ``N-gram`` and ``xz -9``."""
    paths = _paths(settings, loaded.facts.get("data") or {})
    path, notes = ", ".join(paths), list[str]()
    held = _documents(loaded, paths, settings.split, settings.documents)
    if not held:
        raise InputError(
            f"{path} has no document of split {settings.split!r}: give split= or data="
        )
    texts = [loaded.tokenizer.decode(one.tolist(), skip_special_tokens=True) for one in held]
    sizes = np.array([len(text.encode()) for text in texts], np.float64)
    if not sizes.sum():
        raise InputError(f"{path}: the documents of split {settings.split!r} have no text")
    first = first_of(loaded, settings)
    bits = [
        -answer / math.log(2) for answer in document_log_probs(loaded, held, settings.stride, first)
    ]
    rows: dict[str, Any] = {"model": _row(bits, sizes)}
    training_tokens = sum(_tokens_of(one, "train") for one in paths)
    if (settings.ngram or settings.xz) and training_tokens > MOST:
        notes = [
            f"{training_tokens:,} training tokens are more than {MOST:,}: no n-gram model, no xz"
        ]
    elif settings.ngram or settings.xz:
        training = _documents(loaded, paths, "train", None)
        if not training:
            raise InputError(f"{path} has no training document: give ngram=0 xz=false")
        if settings.ngram:
            from trainer.evaluation.ngram import NGram

            model = NGram(training, loaded.vocabulary, settings.ngram)
            found = [-model.log_probs(one).sum() / math.log(2) for one in held]
            rows[f"{settings.ngram}-gram"] = _row(found, sizes)
        if settings.xz:
            decode = loaded.tokenizer.decode
            before = [decode(one.tolist(), skip_special_tokens=True) for one in training]
            rows["xz -9"] = {"bits_per_byte": 8 * added(before, texts) / float(sizes.sum())}
    tokens = sum(map(len, held))
    return {
        "headline": {"metric": "bits per byte", **rows["model"]["bits_per_byte"], "chance": None},
        "amounts": ["bits per byte", "bits_per_byte"],
        "rows": rows,
        "documents": len(held),
        "tokens": tokens,
        "bytes": int(sizes.sum()),
        "perplexity": 2.0 ** (sum(map(float, bits)) / tokens),
        "first": first,
        "notes": notes,
        "interval": "95 %, of a ratio of sums over documents (normal approximation)",
    }


def foresee(settings: Settings, data: Mapping[str, Any]) -> None:
    """Refuse, before a run begins, what would be refused at its end. ``data``: as in run.json.

    UsageError if the data has no token of the split.
    """
    paths = _paths(settings, data)
    if not any(_tokens_of(path, settings.split) for path in paths):
        raise UsageError(
            f"evaluate.split={settings.split}: {', '.join(paths)} has no token of that split to score at "
            "the end: build the data with a larger validation=, name another evaluate.data=, or give "
            "evaluate=null"
        )


def first_of(loaded: LanguageModel, settings: Settings) -> Literal["uniform", "eos"]:
    """Return how a document's first token is paid for. UsageError for eos where there is none."""
    if settings.first == "auto":
        return "uniform" if loaded.documents or loaded.eos is None else "eos"
    if settings.first == "eos" and loaded.eos is None:
        raise UsageError("first=eos: the model has no end-of-text token; give first=uniform")
    return settings.first


def document_log_probs(
    loaded: LanguageModel,
    documents: Sequence[npt.NDArray[np.integer]],
    stride: int | None,
    first: Literal["uniform", "eos"],
) -> list[float]:
    """Return ln p of each document: every token once, in windows of the model's context.

    UsageError for a ``stride`` above the context.
    """
    step = stride or max(1, loaded.context // 2)
    if step > loaded.context:
        raise UsageError(f"stride={step} is more than the {loaded.context} tokens of the context")
    rows: list[tuple[Ids, int]] = []
    owners: list[int] = []
    found = [0.0] * len(documents)
    for number, document in enumerate(documents):
        ids = np.asarray(document, np.int64)
        if first == "eos":
            ids = np.concatenate([[loaded.eos], ids]).astype(np.int64)
        elif len(ids):
            found[number] = -math.log(loaded.vocabulary)
        for window, k in windows(ids, loaded.context, step):
            rows.append((window, k))
            owners.append(number)
    for owner, answer in zip(owners, loaded.answers(rows, "documents"), strict=True):
        found[owner] += float(answer.log_probs.sum())
    return found


def windows(ids: Ids, context: int, stride: int) -> Iterator[tuple[Ids, int]]:
    """Yield windows (at most ``context`` + 1 tokens) and how many of their last tokens are new: all
    tokens but the first, each once."""
    done = 1
    while done < len(ids):
        stop = min(len(ids), context + 1 if done == 1 else done + stride)
        yield ids[max(0, stop - context - 1) : stop], stop - done
        done = stop


def ratio(values: Floats, sizes: Floats) -> dict[str, float]:
    """Return sum of values / sum of sizes over documents [n], with a 95 % interval over which
    documents there are."""
    n = len(sizes)
    mean = float(values.sum() / sizes.sum())
    residual = values - mean * sizes
    spread = math.sqrt(float(residual @ residual) * n / max(1, n - 1)) / float(sizes.sum())
    return {"mean": mean, "low": mean - _Z * spread, "high": mean + _Z * spread, "n": float(n)}


def added(before: Sequence[str], texts: Sequence[str]) -> int:
    """Return the bytes that texts add to `xz -9` of those before."""
    known, new = ("".join(f"{text}\0" for text in part).encode() for part in (before, texts))
    return len(lzma.compress(known + new, preset=9)) - len(lzma.compress(known, preset=9))


# -- helpers -------------------------------------------------------------------------------


def _row(bits: Sequence[float], sizes: Floats) -> dict[str, Any]:
    limits = ratio(np.asarray(bits, np.float64), sizes)
    return {"bits_per_byte": {name: round(value, 6) for name, value in limits.items()}}


def _paths(settings: Settings, data: Mapping[str, Any]) -> list[str]:
    """Where the documents are: as the settings say, else the data of a run. UsageError if neither does."""
    named = [settings.data] if settings.data else [data.get("location")]
    found = [str(one) for one in named if one] or [str(one) for one in data.get("mix") or ()]
    if not found:
        raise UsageError("which documents: give data=, a dataset of `dataflows run tokens`")
    return found


def _tokens_of(path: str, split: str) -> int:
    """Tokens of a split, by the index that training builds."""
    from schemas.dataset import open_dataset
    from trainer.packing.lengths import Lengths

    lengths = Lengths.of(open_dataset(path))
    return sum(
        int(lengths.tokens[:, i].sum()) for i, name in enumerate(lengths.splits) if name == split
    )


def _documents(
    loaded: LanguageModel, paths: Sequence[str], split: str, most: int | None
) -> list[npt.NDArray[np.integer]]:
    """Token arrays of a split, in the data's order."""
    from schemas.dataset import open_dataset
    from trainer.data_tokenizer import FILE, parse
    from trainer.packing.lengths import check_schema
    from trainer.packing.tokens import Alphabet

    found: list[npt.NDArray[np.integer]] = []
    for path in paths:
        dataset = open_dataset(path)
        check_schema(dataset)
        kind = np.dtype(f"<u{Alphabet.of(dataset).bytes}")
        own = parse(dataset.blob(FILE).read_bytes(), path).get_vocab()
        if own != loaded.tokenizer.get_vocab():
            raise UsageError(
                f"{path} has tokens of another tokenizer than the model's ({len(own):,} against "
                f"{loaded.tokenizer.get_vocab_size():,} tokens): tokenise the texts with the model's"
            )
        for table in dataset.tables(["split", "tokens"]):
            columns = (table[name].to_pylist() for name in ("split", "tokens"))
            for name, data in zip(*columns, strict=True):
                if name == split:
                    if most is not None and len(found) == most:
                        return found
                    found.append(np.frombuffer(data, kind))
    return found
