"""Bits per byte, LAMBADA, bAbI and export of a trained Llama, against what `transformers`
says of the exported folder, one text at a time."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from schemas.dataset import open_dataset
from schemas.errors import InputError, UsageError
from tests.trainer.evaluation.test_ngram import Plain
from tests.trainer.evaluation.token_data import corpus, sentences, token_data, trained, trained_bpe
from trainer import export
from trainer.evaluation import bits, language, registry

CONTEXT = 64


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("language") / "run", data, "length.steps=40")


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    return export.export(str(run))


@pytest.fixture(scope="module")
def plain(exported: Path) -> tuple[Any, Any]:
    """The exported model and tokenizer by public classes of `transformers` alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(exported, local_files_only=True).eval()
    return model, AutoTokenizer.from_pretrained(exported, local_files_only=True)


@pytest.fixture(scope="module")
def loaded(run: Path) -> language.LanguageModel:
    return language.load_language(run)


def log_probs(model: Any, ids: list[int]) -> torch.Tensor:
    """ln p of each token but the first, one pass."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    return logits.gather(-1, torch.tensor(ids[1:])[:, None]).squeeze(-1)


def rows(data: Path, split: str) -> list[list[int]]:
    table = open_dataset(data).read_shard(0)
    return [
        np.frombuffer(row["tokens"], "<u2").tolist()
        for row in table.to_pylist()
        if row["split"] == split
    ]


# -- bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [None, 1, 7, 64])
def test_bits_per_byte_by_hand(
    stride: int | None, run: Path, data: Path, plain: tuple[Any, Any]
) -> None:
    """Each token in a window that begins where the docstring says, by the library's model."""
    model, tokenizer = plain
    settings = {"ngram": 0, "xz": False} | ({"stride": stride} if stride else {})
    result = registry.evaluate(language.load(run), "bits", settings)
    step = stride or CONTEXT // 2
    total = size = longest = 0.0
    for ids in rows(data, "validation"):
        nats = math.log(len(tokenizer))
        done = 1
        while done < len(ids):
            stop = min(len(ids), max(CONTEXT + 1, done + step) if done == 1 else done + step)
            window = ids[max(0, stop - CONTEXT - 1) : stop]
            nats -= float(log_probs(model, window)[-(stop - done) :].double().sum())
            done = stop
        total += nats / math.log(2)
        size += len(tokenizer.decode(ids, skip_special_tokens=True).encode())
        longest = max(longest, len(ids))
    assert longest > 2 * CONTEXT  # some need windows
    assert result["headline"]["mean"] == pytest.approx(total / size, abs=1e-5)
    assert result["bytes"] == size
    assert result["headline"]["low"] < result["headline"]["mean"] < result["headline"]["high"]


def test_windows_predict_each_token_once_with_enough_before() -> None:
    for length in (1, 2, 9, 10, 11, 57):
        for stride in (1, 3, 9):
            ids = np.arange(length)
            said = []
            for window, k in bits.windows(ids, 9, stride):
                assert len(window) <= 10 and k < len(window)
                said += window[-k:].tolist()
                assert window[0] == 0 or len(window) - k >= 10 - stride
            assert said == list(range(1, length))


def test_the_rows_beside_it(run: Path, data: Path, tmp_path: Path) -> None:
    result = registry.evaluate(language.load(run), "bits", {"ngram": 3})
    training, held = rows(data, "train"), rows(data, "validation")
    reference = Plain(training, 300, 3)
    nats = -sum(sum(reference.log_probs(ids)) for ids in held)
    found = result["rows"]["3-gram"]["bits_per_byte"]["mean"]
    assert found == pytest.approx(nats / math.log(2) / result["bytes"], abs=2e-6)
    if shutil.which("xz") is None:
        pytest.skip("xz is not installed")
    tokenizer = language.load_language(run).tokenizer
    sizes = []
    for documents in (training, training + held):
        file = tmp_path / "texts"
        texts = (tokenizer.decode(ids, skip_special_tokens=True) + "\0" for ids in documents)
        file.write_text("".join(texts), encoding="utf-8", newline="")
        packed = subprocess.run(["xz", "-9", "-T1", "-c", file], capture_output=True, check=True)
        sizes.append(len(packed.stdout))
    wanted = 8 * (sizes[1] - sizes[0]) / result["bytes"]
    assert result["rows"]["xz -9"]["bits_per_byte"] == pytest.approx(wanted, rel=0.01)


def test_a_first_token_after_the_end_of_text(data: Path, run: Path, plain: tuple[Any, Any]) -> None:
    """A model that saw documents one after the other reads an end of text before each."""
    loaded = language.load_language(run)
    assert bits.first_of(loaded, bits.Settings()) == "uniform"
    result = registry.evaluate(loaded, "bits", {"first": "eos", "ngram": 0, "xz": False})
    short = [ids for ids in rows(data, "validation") if len(ids) <= CONTEXT]
    wanted = [float(log_probs(plain[0], [0, *ids]).sum()) for ids in short]
    found = bits.document_log_probs(loaded, [np.array(ids) for ids in short], None, "eos")
    assert len(short) > 2 and found == pytest.approx(wanted, rel=1e-5)
    assert result["first"] == "eos"


def test_what_bits_refuses(run: Path, data: Path, tmp_path: Path) -> None:
    loaded = language.load_language(run)
    with pytest.raises(InputError, match="no document of split 'test'"):
        registry.evaluate(loaded, "bits", {"split": "test"})
    with pytest.raises(UsageError, match="stride=65 is more than the 64"):
        registry.evaluate(loaded, "bits", {"stride": 65})
    with pytest.raises(UsageError, match="not an evaluation of a language model; give one of bits"):
        registry.evaluate(loaded, "retrieval", {"path": "x"})
    texts = sentences(3, 20)
    pairs = [("validation", text) for text in texts]
    other = token_data(tmp_path / "tokens", pairs, trained_bpe(texts, 280), tmp_path)
    with pytest.raises(UsageError, match="another tokenizer"):
        registry.evaluate(loaded, "bits", {"data": str(other)})


def test_an_image_text_model_is_not_asked(clip_folder: Path) -> None:
    with pytest.raises(UsageError, match="bits: not an evaluation of an image-text model"):
        registry.evaluate(language.load(clip_folder), "bits", {"data": "x"})
    with pytest.raises(InputError, match="image-text model"):
        language.load_language(clip_folder)


# -- lambada and babi ----------------------------------------------------------------------


def harness(model: Any, tokenizer: Any, context: str, continuation: str) -> tuple[float, bool]:
    """A log-likelihood request as lm-evaluation-harness answers it, alone and without padding."""
    if spaces := len(context) - len(context.rstrip()):
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole = tokenizer(context + continuation, add_special_tokens=False).input_ids
    before = len(tokenizer(context, add_special_tokens=False).input_ids)
    k = len(whole) - before
    read = whole[-(CONTEXT + 1) :]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([read[:-1]])).logits[0, -k:].log_softmax(-1)
    wanted = torch.tensor(read[-k:])
    found = logits.gather(-1, wanted[:, None]).sum()
    return float(found), bool((logits.argmax(-1) == wanted).all())


def test_lambada_as_the_harness_scores_it(
    run: Path, plain: tuple[Any, Any], tmp_path: Path
) -> None:
    file = tmp_path / "passages.jsonl"
    passages = [text.removesuffix(".").rsplit(" ", 1) for text in sentences(9, 60)]
    passages += [["the cat ", "sat"], ["a dog  ran\n", "on"]]
    lines = [json.dumps({"context": c, "target": t, "id": 1}) for c, t in passages]
    file.write_text("\n".join(lines) + "\n")
    result = registry.evaluate(language.load(run), "lambada", {"path": str(file)})
    wanted = [harness(*plain, context, f" {target}") for context, target in passages]
    score = result["rows"]["lambada"]
    logs = np.array([log for log, _ in wanted])
    assert score["accuracy"]["mean"] == pytest.approx(np.mean([g for _, g in wanted]), abs=1e-6)
    assert 0 < score["accuracy"]["mean"] < 1
    assert score["perplexity"]["mean"] == pytest.approx(math.exp(-logs.mean()), rel=1e-4)


def test_shared_lambada_and_babi(run: Path, plain: tuple[Any, Any], shared_data: Path) -> None:
    """The first records of the real files."""
    path = shared_data / "lambada"
    loaded = language.load(run)
    result = registry.evaluate(loaded, "lambada", {"path": str(path), "records": 12})
    with gzip.open(path / "lambada.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line, _ in zip(lines, range(12), strict=False)]
    wanted = [harness(*plain, r["context"], f" {r['target']}")[0] for r in records]
    found = result["rows"]["lambada"]["perplexity"]["mean"]
    assert found == pytest.approx(math.exp(-np.mean(wanted)), rel=1e-4)
    file = shared_data / "babi/babi_train.jsonl.gz"
    result = registry.evaluate(loaded, "babi", {"path": str(file), "records": 2})
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    tasks = sorted({r["task"] for r in records})
    assert list(result["rows"]) == ["all", *tasks] and result["headline"]["n"] == 2 * len(tasks)
    first = next(r for r in records if r["task"] == tasks[0])
    story = "\n".join(first["story"])
    prompt = f"Passage: {story}\nQuestion: {first['question']}\nAnswer:"
    right = float(harness(*plain, prompt, f" {first['answer']}")[1])
    assert result["rows"][tasks[0]]["accuracy"]["mean"] in ((0.0, 0.5), (0.5, 1.0))[int(right)]


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "line 2"), ('{"context": "a"}', "line 2.*context, target"), ("[1]", "line 2")],
)
def test_bad_records_are_named(line: str, said: str, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "passages.jsonl"
    file.write_text('{"context": "the", "target": "cat"}\n' + line)
    with pytest.raises(InputError, match=said):
        registry.evaluate(language.load(run), "lambada", {"path": str(file)})


# -- export -----------------------------------------------------------------


def test_an_export_has_the_runs_logits_and_ids(
    loaded: language.LanguageModel, exported: Path, plain: tuple[Any, Any]
) -> None:
    model, tokenizer = plain
    texts = [*sentences(5, 4), "é 日本", "a <|endoftext|> inside", "", "  two  spaces\n"]
    for text in texts:
        ids = loaded.encode(text)
        assert tokenizer(text).input_ids == ids
        assert tokenizer.decode(ids) == text
        if ids:
            given = torch.tensor([ids[:CONTEXT]])
            with torch.no_grad():
                ours = loaded.model(input_ids=given).logits
                torch.testing.assert_close(model(input_ids=given).logits, ours, atol=1e-5, rtol=0)
    assert type(model).__module__.startswith("transformers.models.llama")
    assert (model.config.eos_token_id, tokenizer.eos_token_id) == (0, 0)
    card = (exported / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card and "AutoModelForCausalLM" in card


def test_an_export_is_evaluated_as_its_run(run: Path, exported: Path, data: Path) -> None:
    settings = {"data": str(data), "first": "uniform", "ngram": 0, "xz": False}
    one, other = (registry.evaluate(language.load(p), "bits", settings) for p in (run, exported))
    assert one["headline"]["mean"] == pytest.approx(other["headline"]["mean"], abs=1e-6)
    assert language.load_language(exported).eos == 0


def test_another_tokenizer_is_refused(exported: Path, tmp_path: Path) -> None:
    texts = sentences(3, 20)
    pairs = [("train", text) for text in texts]
    other = token_data(tmp_path / "tokens", pairs, trained_bpe(texts, 280), tmp_path)
    with pytest.raises(UsageError, match="is another than that of"):
        from trainer.config import load
        from trainer.engine.parts import build
        from trainer.protocols import Place

        words = [f"data.path={other}", f"output={tmp_path / 'run'}", "model.size=null"]
        words += [f"model.init_from={exported}", "data.sequence_length=32"]
        build(load("llama-tiny", words), Place())


# -- what a run's data can give ------------------------------------------------------------


def test_a_mixture_is_scored_on_all_its_parts(tmp_path: Path, data: Path) -> None:
    texts = sentences(31, 30)
    split = ["validation" if i % 5 == 0 else "train" for i in range(len(texts))]
    tokenizer = tokenizers.Tokenizer.from_str(
        open_dataset(data).blob("tokenizer.json").read_bytes().decode()
    )
    pairs = list(zip(split, texts, strict=True))
    other = token_data(tmp_path / "other", pairs, tokenizer, tmp_path / "work")
    mix = f"data.mix=[{{path: {data}, weight: 1}}, {{path: {other}, weight: 1}}]"
    output = trained(tmp_path / "run", data, "data.path=null", mix, "length.steps=2")
    result = json.loads((output / "eval" / "bits.json").read_text())
    both = [len(rows(one, "validation")) for one in (data, other)]
    assert result["documents"] == sum(both) and min(both) > 0


def test_data_with_nothing_to_score_is_refused_before_the_first_step(tmp_path: Path) -> None:
    texts = sentences(3, 40)
    pairs = [("train", text) for text in texts]
    data = token_data(tmp_path / "tokens", pairs, trained_bpe(texts, 280), tmp_path / "work")
    with pytest.raises(UsageError, match=r"evaluate.split=validation: .* has no token of that"):
        trained(tmp_path / "run", data)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    trained(tmp_path / "run", data, "evaluate=null")


def test_more_tokens_than_an_n_gram_model_takes_are_said(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bits, "MOST", 100)
    result = registry.evaluate(language.load_language(run), "bits", {})
    assert list(result["rows"]) == ["model"]
    assert any("training tokens are more than 100" in line for line in registry.table(result))
