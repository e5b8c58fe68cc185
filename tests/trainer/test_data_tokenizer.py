"""Which tokenizer a run on token data has: the data's, whatever its settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import InputError, UsageError
from tests.trainer.packing import making
from trainer import data_tokenizer
from trainer.config import RunConfig, load


def run(data: str, *words: str) -> RunConfig:
    return load("llama-tiny", [f"data.path={data}", "output=run", *words])


@pytest.fixture
def data(tmp_path: Path) -> str:
    return making.made(tmp_path / "tokens", making.texts([20] * 3)).storage.url


@pytest.mark.parametrize(
    "words", [(), ("tokenizer=data",), ("tokenizer=null", "model.init_from=x")]
)
def test_it_is_the_datas(data: str, words: tuple[str, ...]) -> None:
    if len(words) == 2:
        words = (*words, "model.size=null")
    config = run(data, *words)
    assert data_tokenizer.named(config)
    assert data_tokenizer.read(config) == (making.TOKENIZER, data)


def test_a_model_with_a_vocabulary_of_its_own_needs_none(data: str) -> None:
    assert not data_tokenizer.named(run(data, "tokenizer=null", "model.shape.vocab_size=9"))


def test_a_file_is_compared_with_it(data: str, tmp_path: Path) -> None:
    same, other = tmp_path / "same.json", tmp_path / "other.json"
    same.write_bytes(making.TOKENIZER.replace(b"{", b"{ "))
    other.write_bytes(making.TOKENIZER.replace(b'"b":1', b'"c":1'))
    assert data_tokenizer.read(run(data, f"tokenizer={same}"))[0] == making.TOKENIZER
    with pytest.raises(UsageError, match=r"other.json is another than .*tokenizer=\{name: data\}"):
        data_tokenizer.read(run(data, f"tokenizer={other}"))
    with pytest.raises(InputError, match=r"none.json cannot be read \(No such file"):
        data_tokenizer.read(run(data, f"tokenizer={tmp_path / 'none.json'}"))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"name": "train", "vocabulary": 512}, r"tokenizer.name=train: .*tokenizer=\{name: data\}"),
        ({"name": "data", "vocabulary": 512}, "tokenizer.vocabulary: the data decides it"),
    ],
)
def test_it_cannot_be_trained(data: str, setting: Any, says: str) -> None:
    config = run(data).model_copy(update={"tokenizer": setting})
    with pytest.raises(UsageError, match=says):
        data_tokenizer.read(config)
