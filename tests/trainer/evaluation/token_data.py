"""A committed dataset of tokens from texts, with its tokenizer, and runs that trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from schemas import ids
from schemas.dataset import put_blob
from schemas.storage import storage
from schemas.text_schemas import TOKENS
from tests.schemas import samples

END = "<|endoftext|>"


def trained_bpe(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE that loses nothing; token 0 ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def token_data(
    root: Path, texts: Sequence[tuple[str, str]], tokenizer: Tokenizer, work: Path
) -> Path:
    """Commit (split, text) pairs as a dataset of tokens."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / "tokenizer.json"
    tokenizer.save(str(file))
    rows = []
    for position, (split, text) in enumerate(texts):
        tokens = np.array([*tokenizer.encode(text).ids, 0], "<u2")
        rows.append(
            {
                "doc_id": ids.id128(b"document", text.encode()),
                "split": split,
                "source": "texts",
                "tokens": tokens.tobytes(),
                "length": len(tokens),
                "file": 0,
                "position": position,
            }
        )
    plain = pa.schema([pa.field(f.name, f.type) for f in TOKENS.arrow])
    table = TOKENS.validate(pa.Table.from_pylist(rows, schema=plain))
    size = tokenizer.get_vocab_size()
    samples.committed(
        storage(root),
        TOKENS,
        table,
        blobs={"tokenizer.json": put_blob(storage(root), file)},
        config={"tokens": {"bytes": 2, "vocabulary": size, "eos": 0}},
    )
    return root


WORDS = ["the", "cat", "dog", "sat", "ran", "on", "a", "mat", "log", "and", "then", "it"]
WORDS += ["saw", "one", "bird", "who", "sang", "to", "her"]


def sentences(seed: int, count: int, longest: int = 60) -> list[str]:
    """Texts with a grammar of sorts: each word has three that may follow."""
    random = np.random.default_rng(seed)
    table = np.random.default_rng(0).integers(0, len(WORDS), (len(WORDS), 3))
    found = []
    for _ in range(count):
        at, words = int(random.integers(len(WORDS))), []
        for _ in range(int(random.integers(5, longest))):
            words.append(WORDS[at])
            at = int(table[at, random.integers(3)])
        found.append(" ".join(words) + ".")
    return found


def corpus(root: Path, documents: int = 120) -> Path:
    """A small dataset: nine of ten documents train, the rest are held out."""
    long = sentences(2, 2, 1500)
    texts = [*sentences(1, documents - 4), *long, "é 日本 \n\n ok", "x"]
    split = ["validation" if i % 10 == 7 else "train" for i in range(len(texts))]
    tokenizer = trained_bpe(texts, 300)
    pairs = list(zip(split, texts, strict=True))
    return token_data(root / "tokens", pairs, tokenizer, root / "work")


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def trained(output: Path, dataset: Path, *words: str, **shape: Any) -> Path:
    """Train a very small Llama of the recipe for some steps; the run directory."""
    from trainer.config import load
    from trainer.engine.run import train
    from trainer.protocols import Place

    settings = [f"data.path={dataset}", f"output={output}", "length.steps=6", "batch.size=8"]
    settings += [f"model.shape.{name}={value}" for name, value in {**SHAPE, **shape}.items()]
    settings += ["model.context=64", "data.sequence_length=32", "schedule.warmup=1", "loaders=0"]
    given = {word.partition("=")[0] for word in words}
    kept = [word for word in settings if word.partition("=")[0] not in given]
    assert train(load("llama-tiny", [*kept, *words, "seed=7"]), Place()) == 0
    return output
