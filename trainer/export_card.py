"""The card of an exported model: what it is, how it was made, from which data and under which licences."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from schemas.card import escape
from schemas.dataset import Dataset
from trainer.ancestors import ancestors, datasets_of
from trainer.evaluation.language import LanguageModel
from trainer.export_chat import chat_of

if TYPE_CHECKING:
    from trainer.evaluation.loading import Loaded

USE = """```python
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")
inputs = processor(
    text=["a dog", "een kat"], images=[picture],
    padding="max_length", truncation=True, return_tensors="pt",
)
probabilities = model(**inputs).logits_per_image.softmax(-1)
```"""
USE_LANGUAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
inputs = tokenizer("Once upon a time", return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=100, do_sample=True)
print(tokenizer.decode(tokens[0]))
```"""

CHAT = (
    "the tokenizer has the chat template that the data was rendered by: "
    '`tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")`.'
)


def card(run: dict[str, Any], loaded: Loaded | LanguageModel) -> str:
    """Return the README.md of an export. ``run`` is the run's ``run.json``.

    Licences and inputs come from the dataset's manifest; if the dataset is not where it was, or not
    the one that was trained on, the card says so.
    """
    data = run.get("data") or {}
    datasets, why = datasets_of(data, (run.get("config") or {}).get("data") or {})
    language = isinstance(loaded, LanguageModel)
    chat, no_chat = chat_of(datasets) if language else (None, "")
    front = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {'text-generation' if language else 'zero-shot-image-classification'}",
        "license: other",
        "license_name: see-the-licences-of-the-data-below",
        "---",
    ]
    name = str(run.get("recipe", "run"))
    lines = [*front, "", f"# {escape(name)}, {escape(str(loaded.facts['checkpoint']))}", ""]
    lines += [
        f"A {escape(loaded.model.config.model_type)} model of {loaded.model.num_parameters():,} "
        f"parameters, {_trained_on(loaded)}.",
        "",
        USE_LANGUAGE if language else USE,
        "",
        *(["Conversations: " + CHAT, ""] if chat else []),
        *([no_chat, ""] if no_chat else []),
        " ".join(_reading(loaded, chat is not None)),
        "",
        "## How it was made",
        "",
        *_facts(run, loaded, data),
        "",
        "## Data",
        "",
        *_data(data, datasets, why),
        "",
    ]
    if said := dict.fromkeys(text for one in datasets for text in one.manifest.warnings):
        warnings = (f"* {escape(text)}" for text in said)
        lines += ["## Warnings", "", *warnings, ""]
    return "\n".join(lines)


def _reading(loaded: Loaded | LanguageModel, chat: bool) -> list[str]:
    """What becomes of a special token that stands in a text, by one that the tokenizer has."""
    lines = []
    if (name := _special(loaded)) is not None:
        shown = f"Tokens such as {_code(name)} inside a text are read as"
        rest = "such: take them out of what others wrote." if chat else "text."
        lines.append(f"{shown} {rest}")
    if not isinstance(loaded, LanguageModel):
        lines.append("Images are resized by Pillow (bicubic).")
    return lines


def _special(loaded: Loaded | LanguageModel) -> str | None:
    """The token that ends a text, else the tokenizer's first special one; None if it has none."""
    if not isinstance(loaded, LanguageModel):
        from trainer.tokenizer import frame

        return str(loaded.tokenizer.id_to_token(frame(loaded.tokenizer).end))
    if loaded.eos is not None:
        return str(loaded.tokenizer.id_to_token(loaded.eos))
    added = loaded.tokenizer.get_added_tokens_decoder()
    return next((one.content for _, one in sorted(added.items()) if one.special), None)


def _code(name: str) -> str:
    """A token in Markdown; one that a code span cannot hold as escaped text."""
    return f"`{name}`" if name.isprintable() and "`" not in name else escape(name)


def _trained_on(loaded: Loaded | LanguageModel) -> str:
    if isinstance(loaded, LanguageModel):
        return (
            f"trained to predict the next of {loaded.vocabulary:,} tokens: texts of up to "
            f"{loaded.context} tokens"
        )
    return (
        f"trained from image-text pairs: images of {loaded.image_size} pixels a side, texts of up to "
        f"{loaded.context} tokens"
    )


def _facts(run: dict[str, Any], loaded: Loaded | LanguageModel, data: dict[str, Any]) -> list[str]:
    command = run.get("command")
    shown = shlex.join(command) if isinstance(command, list) else str(command)
    config = run["config"]
    versions = run.get("environment", {}).get("versions", {})
    facts = {
        "command": shown,
        "recipe": run.get("recipe"),
        "seed": run.get("seed"),
        "checkpoint": loaded.facts["checkpoint"],
        "data digest": data.get("digest"),
        "ranks": run.get("ranks"),
        "precision": config.get("precision"),
        "model": json.dumps(config["model"]),
        "optimizer": json.dumps(config.get("optimizer")),
        "schedule": json.dumps(config.get("schedule")),
        "batch": json.dumps(config.get("batch")),
        "libraries": ", ".join(f"{key} {value}" for key, value in versions.items()),
    }
    rows = [f"| {key} | {escape(str(value))} |" for key, value in facts.items() if value]
    return ["| | |", "|---|---|", *rows, ""] if rows else []


def _data(data: dict[str, Any], datasets: list[Dataset], why: str) -> list[str]:
    if not datasets:
        lines = [f"Dataset `{data.get('digest', 'unknown')}`.", ""]
        return [*lines, f"Its manifest was not at hand when this was exported: {escape(why)}"]
    lines = [f"A mixture of {len(datasets)} datasets.", ""] if len(datasets) > 1 else []
    for dataset in datasets:
        manifest = dataset.manifest
        recipe = manifest.recipe.get("name") or manifest.spec.name
        lines += [
            f"Dataset `{manifest.digest}`.",
            f"{manifest.rows:,} rows of `{manifest.spec.name}`, made by `{escape(recipe)}` "
            f"with seed {manifest.seed}, from:",
            "",
            *_ancestors(dataset),
            "",
        ]
    licences = dict.fromkeys(item for one in datasets for item in one.manifest.licence)
    stated = [f"* {escape(item)}" for item in licences]
    return [*lines, "Licences:", "", *(stated or ["* None stated by the inputs."])]


def _ancestors(dataset: Dataset) -> list[str]:
    """One line for each dataset and file that it was made from, as far as they are at hand."""
    found = ancestors(dataset)
    lines = [f"* dataset {escape(one.name)}, digest `{one.digest}`" for one in found]
    for one in (dataset, *(one.dataset for one in found if one.dataset is not None)):
        for item in one.manifest.inputs:
            checksum = f", checksum `{item['checksum']}`" if item.get("checksum") else ""
            lines.append(f"* file {escape(str(item.get('path')))}{checksum}")
    return list(dict.fromkeys(lines))
