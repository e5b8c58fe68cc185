"""A small dataset of tokens cut from the texts that ship with the project, and words of a tiny run on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.support import ROOT
from tests.trainer.evaluation.token_data import SHAPE, token_data, trained_bpe

PLAYS = ROOT / "data" / "text" / "shakespeare" / "plays.jsonl.zst"
VOCABULARY = 384


def passages(count: int, longest: int = 600, seed: int = 5, file: Path = PLAYS) -> list[str]:
    """The first `count` passages of plays, of 40 to `longest` characters."""
    with pa.input_stream(str(file), compression="zstd") as stream:
        lines = stream.read().decode().splitlines()
    random, found = np.random.default_rng(seed), []
    for line in lines:
        text = json.loads(line)["text"]
        while len(text) >= 40 and len(found) < count:
            cut = int(random.integers(40, longest + 1))
            found.append(text[:cut])
            text = text[cut:]
    return found


def dataset(root: Path, documents: int = 200, seed: int = 5) -> Path:
    """Commit `documents` passages below `root`; every tenth is held out."""
    texts = passages(documents, seed=seed)
    split = ["validation" if i % 10 == 7 else "train" for i in range(len(texts))]
    tokenizer = trained_bpe(passages(200), VOCABULARY)
    return token_data(
        root / "tokens", list(zip(split, texts, strict=True)), tokenizer, root / "work"
    )


def words(data: Path, output: Path, steps: int, *more: str) -> list[str]:
    """The recipe and settings of a run of a Llama with some 30,000 parameters."""
    given = [
        *(f"data.path={data}", f"output={output}", f"length.steps={steps}", "batch.size=8"),
        *(f"model.shape.{name}={value}" for name, value in SHAPE.items()),
        *("model.context=64", "data.sequence_length=32", "schedule.warmup=1", "log_every=1"),
        *("evaluate=null", "precision=fp32", "seed=7"),
    ]
    over = {word.partition("=")[0] for word in more}
    return ["llama-tiny", *(w for w in given if w.partition("=")[0] not in over), *more]
