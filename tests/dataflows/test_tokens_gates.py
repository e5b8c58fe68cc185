"""The recipe `tokens`: evaluation sets, filters, chat templates, dedup switches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from curation.text.training import train_bpe
from dataflows.report.gather import gather
from dataflows.report.source import open_run
from tests.bad_input.command import dataflows
from tests.dataflows.token_runs import corpus, dataset, decoded, prose, rows, run, write_jsonl


@pytest.fixture(scope="module", autouse=True)
def checksum_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remembered checksums stay inside the tests."""
    pytest.MonkeyPatch().setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tokenizer, as transformers saves one."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [prose(seed) for seed in range(20)]
    (folder / "tokenizer.json").write_bytes(train_bpe(texts, 300, ["<|user|>", "<|end|>"]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


def test_contamination_fails_the_run_or_drops_the_documents(
    tmp_path: Path, tokenizer: Path
) -> None:
    texts = [prose(seed) for seed in range(50)]
    write_jsonl(tmp_path / "in.jsonl", texts)
    question = " ".join(texts[7].split()[10:30]).upper()
    (tmp_path / "quiz.jsonl").write_text(
        json.dumps({"question": question, "answer": "mitan"}) + "\n"
        + json.dumps({"question": prose(99), "answer": None}) + "\n"
    )  # fmt: skip
    settings = (
        f"input={tmp_path}/in.jsonl",
        f"tokenizer={tokenizer}",
        "dedup=off",
        f"decontaminate.quiz={tmp_path}/quiz.jsonl",
        "contamination.columns=question,answer",
        f"output={tmp_path}/out",
    )
    code, said = dataflows("run", "tokens", *settings)
    assert code == 1
    assert "found in 1 of 50 documents (1 with quiz)" in said
    assert " ".join(question.lower().split()[:5]) in said and "on_contamination=drop" in said
    assert not (tmp_path / "out" / "tokens" / "manifest.json").exists()
    page = gather(open_run(f"{tmp_path}/out"))
    (alert,) = page.warnings
    assert alert.stage == "contamination" and "1 of 50 documents share text" in alert.text
    assert "(1 with quiz)" in alert.text and "on_contamination=drop" in alert.text
    assert page.funnel is not None and page.funnel.good
    lines = [(row.label, row.kind, row.count) for row in page.funnel.rows[1:]]
    assert lines == [("contaminated", "rejected", 1), ("without shared text", "out", 49)]
    assert "50 in − 1 = 49 = 49 documents that share no text" in page.funnel.verdict
    said = run(*settings, "on_contamination=drop")
    assert "contamination: finished" in said  # what was found is not looked for again
    assert sorted(decoded(tmp_path / "out")) == sorted(texts[:7] + texts[8:])
    counts = {row["reason"]: row["count"] for row in dataset(tmp_path / "out").manifest.counts}
    assert counts["contaminated"] == 1
    assert not [a for a in gather(open_run(f"{tmp_path}/out")).warnings if "fail" in a.text]


def test_without_deduplication_all_rows_stay(tmp_path: Path, tokenizer: Path) -> None:
    texts = corpus().texts[:30]
    for name in ("a", "b"):  # equal files: their rows differ in their places alone
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", texts)
    settings = (f"input={tmp_path}/in", f"tokenizer={tokenizer}", "unit_bytes=100")
    run(*settings, "dedup=off", f"output={tmp_path}/off")
    assert sorted(decoded(tmp_path / "off")) == sorted(texts * 2)
    run(*settings, "dedup=exact", f"output={tmp_path}/exact")
    assert len(set(decoded(tmp_path / "exact"))) == dataset(tmp_path / "exact").manifest.rows
    places = rows(tmp_path / "exact")["file"].to_pylist()
    assert set(places) == {0}  # the first of equal places stays


def test_filters_by_preset_and_by_rule(tmp_path: Path, tokenizer: Path) -> None:
    good = "We have seen that the river is wide, and the boats that cross it are many. "
    texts = [good + prose(seed) for seed in range(5)] + ["too short", "# # # #"]
    write_jsonl(tmp_path / "in.jsonl", texts)
    settings = (f"input={tmp_path}/in.jsonl", f"tokenizer={tokenizer}", "dedup=off")
    run(*settings, "filters=gopher", f"output={tmp_path}/gopher")
    found = dataset(tmp_path / "gopher", "documents").manifest
    assert (found.rows, found.config["rules"]["min_words"]) == (5, 50)
    run(*settings, "filters=gopher", "rules.min_words=off", f"output={tmp_path}/less")
    reasons = {
        row["reason"]: row["count"]
        for row in dataset(tmp_path / "less", "documents").manifest.counts
        if row["kind"] == "rejected"
    }
    assert reasons == {"min_stop_words": 1, "min_mean_word_length": 1}


def test_conversations_by_a_chat_template(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "chat.jinja").write_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{{ eos_token }}"
    )
    talk = [{"role": "user", "content": "katan"}]
    (tmp_path / "in.jsonl").write_text(json.dumps({"talk": talk}) + "\n")
    run(
        f"input={tmp_path}/in.jsonl",
        f"tokenizer={tokenizer}",
        "columns.messages=talk",
        f"chat_template={tmp_path}/chat.jinja",
        f"output={tmp_path}/out",
    )
    ids = np.frombuffer(rows(tmp_path / "out")["tokens"][0].as_py(), "<u2").tolist()
    own = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    special = [own.token_to_id(name) for name in ("<|user|>", "<|end|>", "<|endoftext|>")]
    assert ids == [special[0], *own.encode("katan").ids, special[1], special[2]]


def test_another_input_place_with_the_same_bytes_is_the_same_run(
    tmp_path: Path, tokenizer: Path
) -> None:
    write_jsonl(tmp_path / "x" / "wiki" / "a.jsonl", [prose(1), prose(2)])
    settings = (f"tokenizer={tokenizer}", "dedup=off", f"output={tmp_path}/out")
    run(f"sources.wiki={tmp_path}/x", *settings)
    (tmp_path / "x").rename(tmp_path / "y")
    assert run(f"input={tmp_path}/y", *settings).count("finished") == 2
    write_jsonl(tmp_path / "y" / "wiki" / "a.jsonl", [prose(1), prose(3)])
    code, said = dataflows("run", "tokens", f"input={tmp_path}/y", *settings)
    assert code == 4 and "its input files changed" in said
