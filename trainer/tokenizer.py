"""Tokenizers of text towers: load any file of `tokenizers`, train one, encode batches.

A text becomes ``prefix + tokens + [end]``, cut to the context so that the end stays, and padded on
the right. ``</s>`` written inside a text is spelled out like any other text: it is never the end
token, so it moves no feature (the paper's models take it at the first end token; spec section 9.2).
"""

from __future__ import annotations

import itertools
import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from schemas.dataset import open_dataset
from schemas.errors import HeadraceError, InputError, UsageError
from schemas.settings import build
from schemas.storage import Storage, storage
from schemas.table_schemas import TEXTS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from trainer.config import RunConfig
    from trainer.protocols import Place

FILE = "tokenizer.json"
"""Name of the run's tokenizer in its output directory."""

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""Special tokens of a trained tokenizer, by id: the order of XLM-R and XLM-V."""

PADS = ("<pad>", "[PAD]", "<|pad|>")
LONGEST = 1000
"""Characters of a text that a trained tokenizer sees."""

Ids = npt.NDArray[np.int64]


class Settings(BaseModel):
    """``tokenizer: {name: train, ...}``: train one on the texts of a dataset when a run starts."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["train"] = "train"
    vocabulary: int = Field(
        8192, ge=300, le=1_000_000, description="tokens, the 256 bytes and 4 special ones included"
    )
    rows: int = Field(100_000, ge=1, description="texts to train on: the dataset's first")
    dataset: str | None = Field(None, description="a dataset with texts (default: data.path)")
    column: str = Field("text", description="of texts; records have a list of them, texts")


@dataclass(frozen=True)
class Frame:
    """What stands around a text's tokens: ids before, the end token, and the padding."""

    prefix: tuple[int, ...]
    end: int
    pad: int


def frame(tokenizer: Tokenizer) -> Frame:
    """Return what the tokenizer's own post-processor puts around a text.

    XLM-V gives ``<s> ... </s>``, CLIP ``<|startoftext|> ... <|endoftext|>``, mT5 ``... </s>``. Without
    a padding token the end token pads, as CLIP's. InputError if no end token is added.
    """
    around = tokenizer.encode("", add_special_tokens=True).ids
    if not around:
        raise InputError(
            "the tokenizer adds no end-of-text token such as </s>, at which the text feature is taken: "
            "give one whose post-processor adds it, or tokenizer=train"
        )
    named = [tokenizer.token_to_id(name) for name in PADS]
    pads = [number for number in named if number is not None]
    return Frame(tuple(around[:-1]), around[-1], pads[0] if pads else around[-1])


def load(path: str) -> Tokenizer:
    """Load a file of `tokenizers`, or the ``tokenizer.json`` of a model's folder.

    InputError if it is absent, is no such file, or adds no end-of-text token.
    """
    root = storage(path)
    folder, name = (
        (storage(posixpath.dirname(root.url)), root.name)
        if path.endswith(".json")
        else (root, FILE)
    )
    try:
        data = folder.read_bytes(name)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"tokenizer={path}: no such file; give a {FILE} of `tokenizers`, a folder that has one, "
            "or tokenizer=train"
        ) from None
    return parse(data, path)


def parse(data: bytes, name: str) -> Tokenizer:
    """Return the tokenizer of a file's bytes; errors name ``name``."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises a bare Exception
        raise InputError(
            f"tokenizer={name}: not a file of `tokenizers`: {str(error).splitlines()[0]}"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    try:
        frame(tokenizer)
    except InputError as error:
        raise InputError(f"tokenizer={name}: {error}") from None
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], context: int) -> tuple[Ids, Ids]:
    """Return ids and attention mask, int64 [n, context] each; every row has exactly one end token.

    UsageError if the context holds no token of the text.
    """
    around = frame(tokenizer)
    room = context - len(around.prefix) - 1
    if room < 1:
        raise UsageError(
            f"context={context}: at least {len(around.prefix) + 2} are needed to hold one token of text"
        )
    ids = np.full((len(texts), context), around.pad, np.int64)
    mask = np.zeros((len(texts), context), np.int64)
    found = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    for row, encoding in enumerate(found):
        whole = [*around.prefix, *encoding.ids[:room], around.end]
        ids[row, : len(whole)] = whole
        mask[row, : len(whole)] = 1
    return ids, mask


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE: the same texts give the same file, on any number of threads.

    BPE counts whole numbers, so no sum depends on its order (the EM of a Unigram model does). No text
    is unknown to it: what it has not seen is spelled in bytes. Words are runs of letters, marks and
    digits, each with the space before it.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),
        ]
    )
    # Marks stay with their letters, or the vowel signs of Thai and Devanagari would end each word.
    words = Regex(r" ?[\p{L}\p{M}\p{N}]+| ?[^\s\p{L}\p{M}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=32,
        show_progress=False,
    )
    tokenizer.train_from_iterator((text[:LONGEST] for text in texts), trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("<s>", "</s>")],
    )
    return parse(tokenizer.to_str().encode(), "train")


def texts_of(dataset: str, column: str, rows: int) -> Iterator[str]:
    """Yield the first texts of a dataset, in its order (by hashed ids: as good as a sample).

    InputError if it has no such column of texts, or no text in it.
    """
    opened = open_dataset(dataset)
    names = opened.schema.names
    kinds = (pa.string(), TEXTS)
    if column not in names or opened.schema.field(column).type not in kinds:
        raise InputError(
            f"{dataset} is {opened.spec.name} and has no texts in a column {column!r} (its columns: "
            f"{', '.join(names)}): give tokenizer.dataset= or tokenizer.column=, or a tokenizer's file"
        )
    found = itertools.chain.from_iterable(map(_texts, opened.tables([column])))
    first = next(found, None)
    if first is None:
        raise InputError(f"{dataset} has no text to train a tokenizer on: give tokenizer.dataset=")
    return itertools.islice(itertools.chain([first], found), rows)


def _texts(table: pa.Table) -> list[str]:
    column = table.column(0)
    if column.type == TEXTS:
        column = pc.struct_field(pc.list_flatten(column), "text")
    return [text for text in column.to_pylist() if text]


def for_run(config: RunConfig, place: Place) -> Tokenizer:
    """Return the run's tokenizer and keep it as ``OUTPUT/tokenizer.json``.

    Rank 0 loads or trains it and the others receive its bytes, so the process group must stand. A run
    that continues takes the file that it has. Every rank raises what rank 0 raises: UsageError if no
    tokenizer is named or the run has another one, InputError from reading.
    """
    found: list[Any] = [None]
    if place.rank == 0:
        try:
            found = [_made(config, storage(config.output))]
        except HeadraceError as error:
            found = [error]
    if place.ranks > 1:
        import torch.distributed

        torch.distributed.broadcast_object_list(found, src=0)
    if isinstance(found[0], Exception):
        raise found[0]
    return parse(found[0], config.output)


def check(config: RunConfig) -> Settings | str:
    """Return how a run gets its tokenizer: settings to train one, or a path. UsageError if wrong."""
    wanted = config.tokenizer
    if wanted is None:
        # A checkpoint means nothing without the tokenizer that it was trained with.
        wanted = config.model.get("init_from")
    if wanted is None:
        raise UsageError(
            f"tokenizer: none is named; give tokenizer={FILE} (a file of `tokenizers`, for the paper "
            "that of facebook/xlm-v-base) or tokenizer=train"
        )
    if wanted == "train":
        wanted = {}
    return (
        wanted if isinstance(wanted, str) else build(Settings, wanted, "tokenizer", "trainer plan")
    )


def _made(config: RunConfig, output: Storage) -> bytes:
    """Rank 0's part: the bytes of the file."""
    wanted = check(config)
    old = output.read_bytes(FILE) if output.exists(FILE) else None
    if isinstance(wanted, Settings):
        if old is not None:
            return old
        dataset = wanted.dataset or config.data.get("path")
        if not dataset:
            raise UsageError("tokenizer=train needs texts: give tokenizer.dataset= or data.path=")
        made = train(texts_of(str(dataset), wanted.column, wanted.rows), wanted.vocabulary)
    else:
        made = load(wanted)
    new = made.to_str().encode()
    if old is None and not output.create(FILE, new):
        old = output.read_bytes(FILE)  # another writer was first
    if old is not None and json.loads(old) != json.loads(new):
        raise UsageError(
            f"{output.path(FILE)} is not the tokenizer that is named: a run keeps the one it began "
            "with; leave the setting as it was, or give another output="
        )
    return new
