"""Conversations rendered as transformers' tokenizers render them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.text.chat import renderer, special_tokens, template_of
from curation.text.training import train_bpe
from schemas.errors import InputError
from tests.curation.text.whole import whole

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}"
    "{{ eos_token }}\n{% endfor %}"
)
CONFIG = {"bos_token": "<s>", "eos_token": {"content": "<|endoftext|>"}, "chat_template": TEMPLATE}
TALK = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Where is the fish?"},
    {"role": "assistant", "content": "In the river."},
]


def test_a_conversation_is_rendered_as_transformers_does(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    path = tmp_path / "tokenizer.json"
    path.write_bytes(train_bpe(["a fish"] * 3, 260))
    peer = PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token="<s>", eos_token="<|endoftext|>", chat_template=TEMPLATE
    )
    render = renderer(template_of("tokenizer", tmp_path, CONFIG), special_tokens(CONFIG))
    assert render(TALK) == peer.apply_chat_template(TALK, tokenize=False)


def test_templates_are_found_in_files_and_by_name(tmp_path: Path) -> None:
    named = {
        "chat_template": [{"name": "default", "template": "A"}, {"name": "b", "template": "B"}]
    }
    assert template_of("tokenizer", tmp_path, named) == "A"
    (tmp_path / "chat_template.jinja").write_text("C")
    assert template_of("tokenizer", tmp_path, named) == "C"
    assert template_of(str(tmp_path / "chat_template.jinja"), tmp_path, {}) == "C"
    with pytest.raises(InputError, match="no such file"):
        template_of("absent.jinja", tmp_path, {})
    with pytest.raises(InputError, match="give the template's file"):
        template_of("tokenizer", tmp_path / "x", {})


def test_rows_that_cannot_be_rendered_are_dead_letters(tmp_path: Path) -> None:
    rows = [TALK, [], "hello", None, [{"content": "x"}], [{"role": "user", "content": "raise"}]]
    lines = [json.dumps({"messages": row}) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    template = "{% for m in messages %}{% if m.content == 'raise' %}{{ raise_exception('no') }}"
    template += "{% endif %}{{ m.content }};{% endfor %}"
    found = whole(tmp_path, render=renderer(template, {}), messages="messages")
    assert found.texts == [" Be brief. ;Where is the fish?;In the river.;"]
    assert found.rejected == {"bad_messages": 5}
    assert "TemplateError: no" in found.letters[-1]["error"]
