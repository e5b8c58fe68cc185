"""A small corpus with planted duplicates, and runs of the recipe `tokens` over it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from curation.text.documents import document_ids, in_validation
from schemas.dataset import Dataset, open_dataset
from tests.bad_input.command import dataflows

SHARE = 0.2
_WORDS = [
    f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "re", "so") for b in ("tan", "ves", "rip", "dol")
]


def held_out(texts: list[str]) -> list[bool]:
    """Which texts are in the validation split."""
    ids = document_ids([text.encode() for text in texts])
    return in_validation(ids, SHARE).tolist()


def prose(seed: int) -> str:
    """Sixty words and a number, like no other text."""
    drawn = random.Random(seed)
    return " ".join(drawn.choice(_WORDS) for _ in range(60)) + f" {seed}."


@dataclass
class Corpus:
    """Texts in some order: distinct ones, and copies of the first of them, exact and nearly so."""

    distinct: list[str]
    exact: list[tuple[str, str]]  # (text, the copy)
    near: list[tuple[str, str]]

    @property
    def texts(self) -> list[str]:
        """All, shuffled."""
        every = [*self.distinct, *(b for _, b in self.exact), *(b for _, b in self.near)]
        random.Random(5).shuffle(every)
        return every


def corpus() -> Corpus:
    """300 distinct texts, 20 copies with other white space, one the same bytes, 20 with a word more."""
    distinct = [prose(seed) for seed in range(300)]
    exact = [(text, text.replace(" ", "  ", 1 + n)) for n, text in enumerate(distinct[:20])]
    exact.append((distinct[20], distinct[20]))
    near = [(text, f"{text} Again.") for text in distinct[40:60]]
    return Corpus(distinct, exact, near)


def write_jsonl(path: Path, texts: list[str]) -> None:
    """One object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def run(*settings: str) -> str:
    """What a run said; it must succeed."""
    code, said = dataflows("run", "tokens", *settings)
    assert code == 0, said
    return said


def rows(output: Path, stage: str = "tokens") -> pa.Table:
    """All rows of a stage."""
    return pa.concat_tables(open_dataset(str(output / stage)).tables())


def dataset(output: Path, stage: str = "tokens") -> Dataset:
    """A stage's dataset."""
    return open_dataset(str(output / stage))


def digests(output: Path) -> dict[str, str]:
    """Digest of every stage."""
    heads = sorted(output.glob("*/manifest.json"))
    return {head.parent.name: dataset(output, head.parent.name).manifest.digest for head in heads}


def token_rows(output: Path) -> dict[bytes, tuple[str, bytes]]:
    """Split and tokens of each document."""
    table = rows(output)
    columns = (table[name].to_pylist() for name in ("doc_id", "split", "tokens"))
    found = {doc: (split, tokens) for doc, split, tokens in zip(*columns, strict=True)}
    assert len(found) == table.num_rows
    return found


def decoded(output: Path) -> list[str]:
    """The texts of the token rows, by the tokenizer that the dataset carries."""
    tokenizer = Tokenizer.from_file(str(dataset(output).blob("tokenizer.json")))
    cells = rows(output)["tokens"].to_pylist()
    return [tokenizer.decode(np.frombuffer(cell, "<u2")[:-1].tolist()) for cell in cells]
