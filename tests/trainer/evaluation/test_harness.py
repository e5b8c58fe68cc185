"""`harness` and `perplexity`: numbers of lm-evaluation-harness, and what its tasks may not be."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import HeadraceError, InputError, UsageError
from tests.trainer.evaluation.token_data import corpus, sentences, trained
from trainer.evaluation import babi, harness, language, registry

SHIPPED = Path(__file__).parents[3] / "data/tasks"
CONTEXT = 64


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> language.LanguageModel:
    folder = tmp_path_factory.mktemp("language")
    return language.load_language(trained(folder / "run", corpus(folder), "length.steps=40"))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """The shipped tasks with passages that the model has a chance with, and one of choices."""
    for file in SHIPPED.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    rows = [text.removesuffix(".").rsplit(" ", 1) for text in sentences(9, 40, 200)]
    lines = [json.dumps({"context": c, "target": t}) for c, t in rows]
    (tmp_path / "lambada.jsonl").write_text("\n".join(lines))
    story = {"task": "qa1", "story": ["the cat sat.", "the dog ran."], "question": "who ran?"}
    rows_of_babi = [{**story, "answer": answer} for answer in ("dog", "cat", "sat", "bird")]
    (tmp_path / "babi.jsonl").write_text("\n".join(map(json.dumps, rows_of_babi)))
    return tmp_path


def test_the_harness_and_ours_agree(loaded: language.LanguageModel, tasks: Path) -> None:
    result = registry.evaluate(loaded, "harness", {"tasks": str(tasks)})
    theirs = result["rows"]
    assert set(theirs) == {"lambada_cut", "passages", "babi_cut"}
    ours = registry.evaluate(loaded, "lambada", {"path": str(tasks / "lambada.jsonl")})
    score = ours["rows"]["lambada"]
    assert 0 < score["accuracy"]["mean"] < 1
    assert theirs["lambada_cut"]["acc"]["mean"] == pytest.approx(
        score["accuracy"]["mean"], abs=1e-5
    )
    perplexity = theirs["lambada_cut"]["perplexity"]
    assert perplexity["mean"] == pytest.approx(score["perplexity"]["mean"], rel=1e-4)
    assert perplexity["low"] < perplexity["mean"] < perplexity["high"]
    ours = registry.evaluate(loaded, "babi", {"path": str(tasks / "babi.jsonl")})
    assert theirs["babi_cut"]["acc"]["mean"] == ours["headline"]["mean"]
    lines = registry.table(result)
    assert any("lambada_cut" in line for line in lines)
    few = registry.evaluate(loaded, "harness", {"tasks": f"{tasks}/babi.yaml", "records": 2})
    assert few["headline"]["n"] == 2
    assert "HF_HUB_OFFLINE" not in os.environ  # nothing of this process is left changed


def test_perplexity_is_the_harness_s_rolling_one(
    loaded: language.LanguageModel, tasks: Path
) -> None:
    """Against the harness, and against one pass a window by hand."""
    rows = [json.loads(line) for line in (tasks / "lambada.jsonl").read_text().splitlines()]
    texts = [f"{row['context']} {row['target']}" for row in rows]
    file = tasks / "texts.jsonl"
    file.write_text("\n".join(json.dumps({"said": text}) for text in texts))
    result = registry.evaluate(loaded, "perplexity", {"path": str(file), "field": "said"})
    theirs = registry.evaluate(loaded, "harness", {"tasks": f"{tasks}/passages.yaml"})["rows"]
    for name, score in result["rows"]["texts"].items():
        assert theirs["passages"][name] == pytest.approx(score["mean"], rel=1e-5)
        assert score["low"] < score["mean"] < score["high"]
    nats, longest = 0.0, 0
    for text in texts:
        ids = [0, *loaded.encode(text)]  # 0 ends a text
        for start in range(1, len(ids), CONTEXT):
            stop = min(len(ids), start + CONTEXT)
            read = torch.tensor([ids[max(0, stop - CONTEXT - 1) : stop - 1]])
            with torch.no_grad():
                logits = loaded.model(input_ids=read).logits[0].double().log_softmax(-1)
            wanted = torch.tensor(ids[start:stop])
            nats -= float(logits[-len(wanted) :].gather(-1, wanted[:, None]).sum())
        longest = max(longest, len(ids))
    assert longest > 2 * CONTEXT
    size = sum(len(text.encode()) for text in texts)
    words = sum(len(text.split()) for text in texts)
    found = result["rows"]["texts"]
    assert found["bits_per_byte"]["mean"] == pytest.approx(nats / size / math.log(2), rel=1e-5)
    assert found["word_perplexity"]["mean"] == pytest.approx(math.exp(nats / words), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (("dataset_path: json", "dataset_path: EleutherAI/x"), UsageError, "not on this machine"),
        (("lambada.jsonl", "absent.jsonl"), InputError, "there is no file"),
        (("lambada.jsonl", "https://example.org/x.jsonl"), UsageError, "nothing is downloaded"),
        (("task: lambada_cut", "tusk: x"), InputError, "no `task: NAME`"),
        (("{{context}}", "{{contxt}}"), InputError, "cannot run it: UndefinedError.*contxt"),
        (("{{context}}", "{{context"), InputError, "cannot run it: TemplateSyntaxError"),
        (("metric_list:", "metric_list: ["), InputError, "cannot run it"),
        (("metric: acc", "metric: acc2"), UsageError, "metric acc2 is none of the harness's own"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_run_is_named(
    change: tuple[str, str],
    error: type[HeadraceError],
    said: str,
    loaded: language.LanguageModel,
    tasks: Path,
) -> None:
    file = tasks / "lambada.yaml"
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(error, match=said) as caught:
        registry.evaluate(loaded, "harness", {"tasks": str(file)})
    assert "lambada.yaml" in str(caught.value)


def test_nothing_reaches_for_the_network(
    loaded: language.LanguageModel, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the library was imported before, and the variables come too late."""
    import huggingface_hub

    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"looked up {args[0]}")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    tried: list[str] = []
    files = harness.files

    def looking(given: str) -> list[Path]:
        try:
            huggingface_hub.hf_hub_download("org/set", "x.json")
        except Exception as error:
            tried.append(type(error).__name__)
        return files(given)

    monkeypatch.setattr(harness, "files", looking)
    registry.evaluate(loaded, "harness", {"tasks": str(tasks / "lambada.yaml")})
    assert tried == ["LocalEntryNotFoundError"]


def test_names_of_tasks_are_no_files(loaded: language.LanguageModel, tmp_path: Path) -> None:
    for given in ("lambada_openai", str(tmp_path), f"{SHIPPED}/babi.yaml,absent.yaml"):
        with pytest.raises(InputError, match=re.escape(f"tasks={given}")):
            registry.evaluate(loaded, "harness", {"tasks": given})


def test_without_the_harness_the_extra_is_named(
    loaded: language.LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UsageError, match=re.escape("pip install -e '.[lm-eval]'")):
        registry.evaluate(loaded, "harness", {"tasks": str(SHIPPED)})


STORY = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary got the apple.
5 What does Mary carry? \tapple,milk\t4 2
1 Sandra is here.
2 Where is Sandra?\there\t1"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_files_of_babi(end: str, tmp_path: Path) -> None:
    (tmp_path / "qa1_single-supporting-fact_test.txt").write_text(
        STORY.replace("\n", end) + end, newline=""
    )
    (tmp_path / "qa2_two_train.txt").write_text(STORY)
    rows: list[dict[str, Any]] = babi.questions(str(tmp_path), "test")
    story = ["Mary moved to the bathroom.", "John went to the hallway."]
    assert [tuple(row.values()) for row in rows] == [
        ("qa1", story, "Where is Mary?", "bathroom"),
        ("qa1", [*story, "Mary got the apple."], "What does Mary carry?", "apple,milk"),
        ("qa1", ["Sandra is here."], "Where is Sandra?", "here"),
    ]
    assert len(babi.questions(str(tmp_path), "train")) == 3
    assert babi.prompt(rows[0]) == (
        "Passage: Mary moved to the bathroom.\nJohn went to the hallway.\nQuestion: Where is Mary?\nAnswer:"
    )
    (tmp_path / "bad.txt").write_text("1 A.\nno number\n")
    with pytest.raises(InputError, match=r"line 2: no number"):
        babi.questions(str(tmp_path / "bad.txt"), "test")
    (tmp_path / "none.txt").write_text("1 A.\n")
    with pytest.raises(InputError, match="has no question"):
        babi.questions(str(tmp_path / "none.txt"), "test")
