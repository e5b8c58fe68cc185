"""Text from a trained Llama: greedy as `transformers` says, seeded, whole characters, nothing that acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import UsageError
from tests.trainer.evaluation.token_data import corpus, trained
from trainer import export
from trainer.cli import main
from trainer.evaluation import language
from trainer.generation import sampling

CONTEXT = 64


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generation")
    return trained(root / "run", corpus(root), "length.steps=20", "evaluate=null")


@pytest.fixture(scope="module")
def loaded(run: Path) -> language.LanguageModel:
    return language.load_language(run)


@pytest.fixture(scope="module")
def plain(run: Path) -> tuple[Any, Any]:
    """The exported model and tokenizer by public classes of `transformers` alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = export.export(str(run))
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_greedy_text_is_the_librarys(
    loaded: language.LanguageModel, plain: tuple[Any, Any]
) -> None:
    model, tokenizer = plain
    settings = sampling.Settings(prompt="the cat sat", tokens=30, temperature=0)
    ours = list(sampling.continuation(loaded, settings))
    given = tokenizer("the cat sat", return_tensors="pt")
    theirs = model.generate(**given, max_new_tokens=30, do_sample=False)[
        0, given.input_ids.shape[1] :
    ]
    assert ours == [token for token in theirs.tolist() if token != 0]


def test_draws_have_the_probabilities_of_the_softmax() -> None:
    """Over an even grid of numbers each token comes as often as its probability says."""
    logits = np.random.default_rng(0).normal(0, 1.5, 20)
    grid = (np.arange(20_000) + 0.5) / 20_000
    for settings, kept in (
        ({"temperature": 1.0}, 20),
        ({"temperature": 0.5, "top_k": 5}, 5),
        ({"temperature": 2.0, "top_p": 0.6}, None),
        ({"temperature": 1.0, "top_k": 8, "top_p": 0.5}, None),
    ):
        of = sampling.Settings(**settings)  # type: ignore[arg-type]
        found = np.bincount([sampling.chosen(logits, of, u) for u in grid], minlength=20) / len(
            grid
        )
        probability = np.exp(logits / of.temperature)
        if of.top_k:
            probability[np.argsort(-probability)[of.top_k :]] = 0
        probability /= probability.sum()
        if of.top_p < 1:  # the shortest list of most probable ones that reaches top_p
            order, mass = np.argsort(-probability), 0.0
            for place, token in enumerate(order):
                mass += probability[token]
                if mass >= of.top_p:
                    probability[order[place + 1 :]] = 0
                    break
            probability /= probability.sum()
        np.testing.assert_allclose(found, probability, atol=2e-4)
        assert kept is None or (found > 0).sum() == kept


def test_seeds_and_samples_differ_and_repeat(loaded: language.LanguageModel) -> None:
    def text(sample: int = 0, **more: Any) -> list[int]:
        settings = sampling.Settings(prompt="the", tokens=20, temperature=1.5, **more)
        return list(sampling.continuation(loaded, settings, sample))

    assert text() == text() and text(seed=5) == text(seed=5)
    assert len({tuple(t) for t in (text(), text(1), text(seed=5), text(1, seed=5))}) == 4


def test_a_context_is_filled_and_not_left(loaded: language.LanguageModel) -> None:
    prompt = " ".join(["the cat"] * 20)
    settings = sampling.Settings(prompt=prompt, tokens=500, temperature=1.0)
    room = CONTEXT - len(loaded.encode(prompt))
    assert 0 < len(list(sampling.continuation(loaded, settings))) <= room
    with pytest.raises(UsageError, match="leave no room in the 64"):
        sampling.start(loaded, sampling.Settings(prompt="the cat " * 60))
    with pytest.raises(UsageError, match="it is empty"):
        sampling.start(loaded, sampling.Settings())


def test_characters_of_several_tokens_come_whole(loaded: language.LanguageModel) -> None:
    text = "日本 é the 🐈 cat"
    ids = loaded.encode(text)
    assert len(ids) > len(text)
    found = list(sampling.pieces(loaded.tokenizer, iter(ids)))
    assert "".join(found) == text and all("\ufffd" not in piece for piece in found)
    cut = list(sampling.pieces(loaded.tokenizer, iter(ids[:2])))
    assert "".join(cut) == loaded.tokenizer.decode(ids[:2])


def test_the_command_prints_nothing_that_acts(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "red \x1b[31m and \u202e back\nnew line\x07"
    ids = language.load_language(run).encode(said)
    monkeypatch.setattr(sampling, "continuation", lambda *rest: iter(ids))
    assert main(["generate", str(run), "prompt=12"]) == 0
    out = capsys.readouterr().out
    assert out == "12red \\x1b[31m and \\u202e back\nnew line\\x07\n"


def test_the_command_reads_words_as_typed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(run), "prompt=yes", "tokens=5", "seed=3", "samples=2"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert first.startswith("--- 1 of 2\nyes") and "\n--- 2 of 2\nyes" in first
    assert main(words) == 0 and capsys.readouterr().out == first
    assert main(["generate", str(run), "prompt=a", "token=5"]) == 2
    assert "did you mean tokens" in capsys.readouterr().err
