"""What a token source refuses, in words that name the value, the limit and the fix."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schemas.dataset import Dataset
from schemas.errors import InputError, IntegrityError, UsageError
from schemas.storage import storage
from tests.schemas import samples
from tests.trainer.packing import making
from trainer.config import part
from trainer.protocols import Parts
from trainer.sources.tokens import Settings, Tokens, build

OTHER = making.TOKENIZER.replace(b'"b":1', b'"c":1')


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return making.made(tmp_path / "d", making.texts([20] * 30))


def settings(dataset: Dataset, **change: Any) -> Settings:
    return Settings(**{"path": dataset.storage.url, "sequence_length": 16, **change})


def run(dataset: Dataset, *, tokenizer: bytes | None = None, **model: int) -> None:
    from tokenizers import Tokenizer

    shape = SimpleNamespace(max_position_embeddings=64, vocab_size=1 << 20)
    vars(shape).update(model)
    own = Tokenizer.from_str(tokenizer.decode()) if tokenizer else None
    config: Any = SimpleNamespace(seed=0)
    build(settings(dataset), config, Parts(own, SimpleNamespace(config=shape)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"exactly one of data.path= and data.mix="),
        ({"path": "a", "mix": [{"path": "b", "weight": 1}]}, "exactly one of"),
        (
            {"path": "a", "schedule": [{"tokens": 5, "weights": [1]}]},
            "data.mix=, which is not given",
        ),
        (
            {"mix": [{"path": "b", "weight": 1}], "schedule": [{"tokens": 5, "weights": [1, 2]}]},
            r"2 weights from token 5 on; data.mix has 1 parts",
        ),
        (
            {
                "mix": [{"path": "b", "weight": 1}],
                "schedule": [{"tokens": 9, "weights": [1]}, {"tokens": 5, "weights": [1]}],
            },
            r"tokens are \[9, 5\]; give them in ascending order",
        ),
        ({"path": "a", "packing": "first_fit"}, "packing"),
        ({"path": "a", "sequence_length": 0}, "sequence_length"),
    ],
)
def test_settings_that_contradict_each_other(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        part("data", {"name": "tokens", "sequence_length": 16, **change})


def test_a_sequence_longer_than_the_positions_of_the_model(dataset: Dataset) -> None:
    run(dataset, max_position_embeddings=16)
    with pytest.raises(
        UsageError, match=r"sequence_length=16: the model has 15 positions; give .*=15"
    ):
        run(dataset, max_position_embeddings=15)


def test_a_model_with_fewer_tokens_than_the_data(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"vocabulary of 1048576 tokens, the model one of 1000"):
        run(dataset, vocab_size=1000)


def test_another_tokenizer_than_the_datas(dataset: Dataset) -> None:
    run(dataset, tokenizer=making.TOKENIZER)
    with pytest.raises(UsageError, match=r"another than the one that made .*name: data"):
        run(dataset, tokenizer=OTHER)


def test_a_mixture_of_two_tokenizers(dataset: Dataset, tmp_path: Path) -> None:
    other = making.made(tmp_path / "o", making.texts([20] * 30, first=900), tokenizer=OTHER)
    mix = [{"path": d.storage.url, "weight": 1} for d in (dataset, other)]
    config: Any = SimpleNamespace(seed=0)
    with pytest.raises(UsageError, match="their ids mean different tokens"):
        build(settings(dataset, path=None, mix=mix), config, Parts())


def test_data_without_a_tokenizer(tmp_path: Path) -> None:
    data = making.made(tmp_path / "n", making.texts([20] * 3), blobs={})
    config: Any = SimpleNamespace(seed=0)
    with pytest.raises(InputError, match=r"no blob tokenizer.json"):
        build(settings(data), config, Parts())


def test_a_dataset_of_something_else(tmp_path: Path) -> None:
    samples.committed(storage(tmp_path / "pool"))
    with pytest.raises(InputError, match="is pool, not tokens: give the tokens of"):
        Tokens(Settings(path=str(tmp_path / "pool"), sequence_length=16), 0)


def test_a_head_that_does_not_say_what_its_ids_are(tmp_path: Path) -> None:
    config = {"tokens": {"bytes": 3, "vocabulary": 10, "eos": None}}
    data = making.made(tmp_path / "n", making.texts([20] * 3), config=config)
    with pytest.raises(
        InputError, match=r"config.tokens = .*'bytes': 3.*expected bytes \(2 or 4\)"
    ):
        Tokens(settings(data), 0)


def test_an_empty_split_and_one_too_small_for_a_sequence(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no token of that split; it has train"):
        Tokens(settings(dataset, split="validation"), 0)
    small = making.made(tmp_path / "s", making.texts([16]))
    with pytest.raises(UsageError, match=r"takes 17 tokens .* has 16: give .*sequence_length=15"):
        Tokens(settings(small), 0)
    assert Tokens(settings(small, sequence_length=15), 0).samples(1) == 1
    assert Tokens(settings(small, packing="best_fit"), 0).samples(1) == 1
    empty = making.made(tmp_path / "e", making.texts([0, 0]))
    with pytest.raises(UsageError, match="it has no tokens at all"):
        Tokens(settings(empty), 0)


@pytest.mark.parametrize("width", [2, 4])
def test_ids_out_of_the_vocabulary_name_the_document(tmp_path: Path, width: int) -> None:
    texts = making.texts([20] * 30)
    data = making.made(tmp_path / "v", texts, vocabulary=590, width=width)
    with pytest.raises(IntegrityError, match=r"token 590, the vocabulary .* ends at 589") as error:
        Tokens(settings(data), 0).batch(np.arange(37))
    assert texts[29].doc_id.hex() in str(error.value)


def test_bytes_that_are_not_as_long_as_they_say(tmp_path: Path) -> None:
    texts = making.texts([20] * 30)
    lengths = [21 if i == 11 else 20 for i in range(30)]
    data = making.made(tmp_path / "b", texts, length=lengths, stats={})
    with pytest.raises(
        IntegrityError, match=r"80 bytes of tokens, its length is 21 tokens"
    ) as error:
        Tokens(settings(data), 0).batch(np.arange(37))
    assert texts[11].doc_id.hex() in str(error.value)


def test_a_shard_that_was_changed_is_not_read(dataset: Dataset) -> None:
    source = Tokens(settings(dataset), 0)
    path = dataset.storage.local_path(dataset.shards()[0].file)
    assert path is not None
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="checksum"):
            source.batch(np.arange(37))
    raw[200] ^= 1
    path.write_bytes(raw)
    assert source.batch(np.arange(37))["labels"].shape == (37, 16)


def test_a_position_before_the_first(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="no sample -1"):
        Tokens(settings(dataset), 0).batch(np.array([-1]))


def test_a_document_of_ten_megabytes_is_like_any_other(tmp_path: Path) -> None:
    texts = [*making.texts([30, 0]), making.Text(range(30, 30 + 2_600_000))]
    data = making.made(tmp_path / "big", texts, vocabulary=1 << 23)
    for packing in ("concatenate", "best_fit"):
        source = Tokens(settings(data, packing=packing, sequence_length=4096), 0)
        batch = source.batch(np.arange(source.samples(1)))
        assert len(np.unique(batch["input_ids"])) > 2_590_000
