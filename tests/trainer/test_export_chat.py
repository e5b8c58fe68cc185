"""The chat template that data was rendered by reaches the tokenizer of an export, with what it names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.text.training import train_bpe
from schemas.dataset import open_dataset
from tests.dataflows.token_runs import prose, run
from tests.trainer.evaluation.token_data import corpus, trained
from trainer import export
from trainer.export_chat import Chat, chat_of

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|begin|>", "<|user|>", "<|assistant|>", "<|end|>"]


def talks() -> list[list[dict[str, str]]]:
    return [
        [{"role": "user", "content": prose(k)}, {"role": "assistant", "content": prose(k + 100)}]
        for k in range(40)
    ]


@pytest.fixture(scope="module")
def trained_on_talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on conversations by the tokenizer's own template."""
    root = tmp_path_factory.mktemp("chat")
    own = root / "tokenizer"
    own.mkdir()
    (own / "tokenizer.json").write_bytes(train_bpe([prose(k) for k in range(20)], 300, SPECIAL))
    config = {"eos_token": "<|endoftext|>", "bos_token": "<|begin|>", "pad_token": "<|none|>"}
    (own / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    (root / "in.jsonl").write_text("".join(json.dumps({"talk": t}) + "\n" for t in talks()))
    run(
        f"input={root}/in.jsonl",
        f"tokenizer={own}",
        "columns.messages=talk",
        "chat_template=tokenizer",
        "dedup=off",
        f"output={root}/out",
    )
    return trained(root / "run", root / "out" / "tokens", "length.steps=2", "evaluate=null")


def loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_an_export_talks_as_its_data_did(trained_on_talk: Path, tmp_path: Path) -> None:
    folder = export.export(str(trained_on_talk), str(tmp_path / "model"))
    tokenizer = loaded(folder)
    assert tokenizer.chat_template == TEMPLATE
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin|>", "<|endoftext|>")
    assert tokenizer.pad_token == "<|endoftext|>", "a token that the tokenizer lacks is not added"
    data = open_dataset(trained_on_talk.parent / "out" / "tokens")
    size = data.manifest.config["tokens"]["vocabulary"]
    assert len(tokenizer) == size
    stored = {
        tuple(np.frombuffer(row, "<u2").tolist())
        for table in data.tables(["tokens"])
        for row in table["tokens"].to_pylist()
    }
    for talk in talks():
        ids = tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
        assert (*ids, tokenizer.eos_token_id) in stored
    card = (folder / "README.md").read_text()
    assert (
        "apply_chat_template" in card and "`<|endoftext|>` inside a text are read as such" in card
    )


def test_a_template_is_found_beside_data_of_older_versions(
    trained_on_talk: Path, tmp_path: Path
) -> None:
    """Those have it with their documents alone; without these an export says what it lacks."""
    out = tmp_path / "out"
    shutil.copytree(trained_on_talk.parent / "out", out)
    dataset = open_dataset(out / "tokens")
    del dataset.manifest.run["runtime"]["chat_template"]
    found, why = chat_of([dataset])
    assert found is not None and (found.template, why) == (TEMPLATE, "")
    assert found.tokens["bos_token"] == "<|begin|>"
    shutil.rmtree(out / "documents")
    dataset.manifest.run["inputs"] = {}  # else those of the first place are found
    found, why = chat_of([dataset])
    assert found is None and "no longer at hand" in why
    other = open_dataset(trained_on_talk.parent / "out" / "tokens")
    other.manifest.run["runtime"]["chat_template"] = "{{ messages[0].content }}"
    mixed = [open_dataset(trained_on_talk.parent / "out" / "tokens"), other]
    assert chat_of(mixed)[0] is None and "2 chat templates" in chat_of(mixed)[1]
    assert isinstance(chat_of(mixed[:1])[0], Chat)


def test_texts_have_no_template_and_a_card_names_their_own_token(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", corpus(tmp_path), "length.steps=1", "evaluate=null")
    folder = export.export(str(run))
    assert loaded(folder).chat_template is None
    card = (folder / "README.md").read_text()
    assert "Tokens such as `<|endoftext|>` inside a text are read as text." in card
    assert "</s>" not in card and "apply_chat_template" not in card
