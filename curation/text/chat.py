"""Conversations to text by a chat template, as `transformers` renders it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from curation.text.tokenising import special
from schemas.errors import InputError, UsageError

OWN = "tokenizer"
"""Value of ``chat_template`` for the template that comes with the tokenizer."""


def template_of(setting: str, folder: Path, config: Mapping[str, Any]) -> str:
    """The Jinja source: of a file, or the tokenizer's own (chat_template.jinja beside it, else in
    its tokenizer_config.json). Raises InputError where there is none, or it is no Jinja."""
    source = _found(setting, folder, config)
    render_texts = _render_texts()
    from jinja2 import TemplateSyntaxError

    try:
        render_texts([[]], chat_template=source)
    except TemplateSyntaxError as error:
        raise InputError(
            f"chat_template={setting}: line {error.lineno} of the template is not Jinja: {error.message}"
        ) from None
    except Exception:  # of a conversation without messages a template may say what it likes
        pass
    return source


def _found(setting: str, folder: Path, config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja" if setting == OWN else Path(setting).expanduser()
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"chat_template={setting}: {file} cannot be read as UTF-8 text: {error}"
            ) from None
    if setting != OWN:
        raise InputError(
            f"chat_template={setting}: no such file; give a Jinja template, or {OWN} for the one that "
            "comes with the tokenizer"
        )
    found = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, Mapping)}
        found = named.get("default")
    if not isinstance(found, str):
        raise InputError(
            f"chat_template={OWN}: neither {file} nor a chat_template in tokenizer_config.json is "
            "there; give the template's file"
        )
    return found


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens of a tokenizer_config.json that a template may use, by their names."""
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return {name: special(config, name) or "" for name in names}


def renderer(template: str, tokens: Mapping[str, str]) -> Callable[[Any], str]:
    """A function from a list of {role, content} to text; ValueError for what cannot be rendered.

    ``tokens`` are the values of bos_token, eos_token and so on in the template.
    """
    render_texts = _render_texts()

    def render(messages: Any) -> str:
        if not isinstance(messages, list) or not messages:
            raise ValueError("expected a list of messages with role and content")
        if not all(isinstance(one, Mapping) and "role" in one for one in messages):
            raise ValueError("a message has no role")
        # Arrow fills the fields that a message does not have with null.
        clean = [{k: v for k, v in one.items() if v is not None} for one in messages]
        try:
            texts, _ = render_texts([clean], chat_template=template, **tokens)
        except Exception as error:  # a template may raise what it likes
            raise ValueError(f"{type(error).__name__}: {str(error)[:200]}") from None
        return texts[0]

    return render


def _render_texts() -> Any:
    """The library's function. UsageError if it is not installed."""
    try:
        from transformers.utils import chat_template_utils
    except ImportError:
        raise UsageError(
            "chat_template= needs the package transformers: pip install 'headrace[train]'"
        ) from None
    # It returns (texts, places of generated parts), which its annotation does not say.
    return chat_template_utils.render_jinja_template
