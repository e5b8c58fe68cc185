"""`trainer parity` finds equal what is equal, and unequal what is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.packing.making import Text, made
from trainer.cli import main
from trainer.config import RunConfig, load
from trainer.parity.compare import LIMITS, relative, rows
from trainer.parity.plain import documents_alone
from trainer.parity.variants import Variant, variants

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 short documents of 64 tokens of vocabulary, committed."""
    place = tmp_path_factory.mktemp("parity") / "tokens"
    random = np.random.default_rng(0)
    lengths = random.integers(2, 30, 2000)
    documents = [Text(random.integers(0, 64, n).tolist()) for n in lengths]
    vocabulary = {f"w{n}": n for n in range(64)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    file = {"version": "1.0", "added_tokens": [], **dict.fromkeys(parts), "model": model}
    made(
        place,
        documents,
        group_rows=500,
        shard_rows=2000,
        width=2,
        vocabulary=64,
        tokenizer=json.dumps(file).encode(),
    )
    return place


def words_of(tokens: Path) -> list[str]:
    given = {"data.path": tokens, "data.sequence_length": 32, "batch.size": 8}
    given |= {f"model.shape.{name}": value for name, value in SMALL.items()}
    return [f"{name}={value}" for name, value in given.items()]


def config_of(tokens: Path) -> RunConfig:
    output = f"output={tokens.parent / 'run'}"
    return load("llama-tiny", [*words_of(tokens), output, "length.steps=1"])


@pytest.mark.slow
def test_the_command_finds_all_ways_alike(
    tokens: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")  # to compile takes minutes
    file = tmp_path / "parity.json"
    words = [*words_of(tokens), "--ranks", "1,2", "--stages", "0,3", "--json", str(file)]
    code = main(["parity", "llama-tiny", *words])
    said = capsys.readouterr().out
    assert code == 0, said
    found = json.loads(file.read_text())
    assert found["faults"] == []
    assert {row["variant"] for row in found["rows"]} == {
        *(f"{n}, ZeRO {stage}" for n in ("1 rank", "2 ranks") for stage in (0, 3)),
        "accumulation, 1 sample a pass",
        "activation checkpointing on",
        "logits of 7 tokens at once",
        "documents not packed",
    }
    assert "documents not packed" in said and "at most" in said


DIFFERENT: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"seed": 1}, ("loss", "gradient", "update", "adamw")),
    ({"data": {"document_mask": False}}, ("loss", "gradient", "update", "adamw")),
    ({"optimizer": {"weight_decay": 0.3}}, ("update",)),
]
"""Changes of settings, and what they must change."""


@pytest.mark.slow
def test_a_run_that_differs_is_seen(tokens: Path, tmp_path: Path) -> None:
    others = [Variant(f"other {n}", 1, changes) for n, (changes, _) in enumerate(DIFFERENT)]
    found = list(rows(config_of(tokens), others, tmp_path, lambda line: None))
    for row, (_, names) in zip(found, DIFFERENT, strict=True):
        assert not row.holds
        for name in names:
            assert getattr(row, name) > 10 * LIMITS[name], (row.variant, name)


def test_each_document_gets_a_row() -> None:
    batch = {
        "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]]),
        "labels": torch.tensor([[2, -100, 4, 9], [6, 7, -100, -100]]),
        "position_ids": torch.tensor([[0, 1, 0, 1], [0, 1, 2, 0]]),
        "segments": torch.tensor([[0, 0, 1, 1], [0, 0, 0, -1]], dtype=torch.int32),
    }
    alone = documents_alone(batch)
    assert alone["input_ids"].tolist() == [[1, 2, 0], [3, 4, 0], [5, 6, 7]]
    assert alone["labels"].tolist() == [[2, -100, -100], [4, 9, -100], [6, 7, -100]]
    assert (alone["labels"] >= 0).sum() == (batch["labels"] >= 0).sum()


def test_differences_are_relative_with_a_floor() -> None:
    assert relative(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])) == pytest.approx(18**-0.5)
    assert relative(torch.tensor([1e-9]), torch.tensor([0.0])) < LIMITS["gradient"]


def test_ways_follow_the_recipe(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/bin/true")
    assert "compiled" in [v.name for v in variants(config_of(tokens), [1], [0])]
    monkeypatch.setenv("CXX", "no-such-compiler")
    names = [v.name for v in variants(config_of(tokens), [1, 4], [0])]
    assert names[:2] == ["1 rank, ZeRO 0", "4 ranks, ZeRO 0"]
    assert len(names) == 6


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler, which torch.compile needs")
@pytest.mark.slow
def test_a_compiled_model_learns_the_same(tokens: Path, tmp_path: Path) -> None:
    ways = [v for v in variants(config_of(tokens), [1], [0]) if v.name == "compiled"]
    (row,) = rows(config_of(tokens), ways, tmp_path, lambda line: None)
    assert row.holds, row
