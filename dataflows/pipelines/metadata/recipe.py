"""Metadata: configuration, and the graph of jobs. No Beam here.

    dumps --> ngrams --\\
    hourly page views --> titles --> metadata
    wordnets -----------/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from curation.metaclip2.language import LANGUAGE_MAP
from curation.metadata import builtin, pageviews, wordnets
from curation.metadata.select import ENGLISH, OTHERS
from curation.metadata.tokenizers import Tokenizer, resolve
from curation.metadata.wikis import OTHER, WIKIPEDIAS
from curation.metadata.wikitext import extractor
from dataflows.engine.stage import Graph, Stage
from dataflows.pipelines.metadata.sources import Input, find_inputs, only_languages
from schemas.errors import UsageError

NAME = "metadata"
SUMMARY = "Wikipedia dumps, page views and wordnets to the concept lists of each language"
_JOBS = "dataflows.pipelines.metadata"
WIKIPEDIA_LICENCE = "Wikipedia text and titles: CC BY-SA 4.0 (Wikipedia contributors)"


def _listed(value: object) -> object:
    """`fr,no` or a YAML list; `no` alone reads as false in YAML and is Norwegian here."""
    words: list[str] = []
    for part in value if isinstance(value, list) else [value]:
        if part is False:
            words.append("no")
        elif isinstance(part, str):
            words += [word.strip() for word in part.split(",") if word.strip()]
        else:
            return value
    return words


Listed = Annotated[list[str], BeforeValidator(_listed)]


class English(BaseModel):
    """Thresholds of the English Wikipedia; null means no limit."""

    model_config = ConfigDict(extra="forbid")
    unigram_count: int = Field(ENGLISH.unigram_count, ge=1)
    unigram_cap: int | None = Field(ENGLISH.unigram_cap, ge=0)
    unigram_fraction: float | None = Field(ENGLISH.unigram_fraction, ge=0, le=1)
    bigram_pmi: float | None = Field(ENGLISH.bigram_pmi)
    bigram_cap: int | None = Field(ENGLISH.bigram_cap, ge=0)
    bigram_fraction: float | None = Field(ENGLISH.bigram_fraction, ge=0)
    title_views: int = Field(ENGLISH.title_views, ge=1)
    title_cap: int | None = Field(ENGLISH.title_cap, ge=0)
    title_fraction: float | None = Field(ENGLISH.title_fraction, ge=0, le=1)
    total: int | None = Field(ENGLISH.total, ge=0)


class Others(English):
    """Caps of every other Wikipedia; null means no limit."""

    unigram_count: int = Field(OTHERS.unigram_count, ge=1)
    unigram_cap: int | None = Field(OTHERS.unigram_cap, ge=0)
    unigram_fraction: float | None = Field(OTHERS.unigram_fraction, ge=0, le=1)
    bigram_pmi: float | None = Field(OTHERS.bigram_pmi)
    bigram_cap: int | None = Field(OTHERS.bigram_cap, ge=0)
    bigram_fraction: float | None = Field(OTHERS.bigram_fraction, ge=0)
    title_views: int = Field(OTHERS.title_views, ge=1)
    title_cap: int | None = Field(OTHERS.title_cap, ge=0)
    title_fraction: float | None = Field(OTHERS.title_fraction, ge=0, le=1)
    total: int | None = Field(OTHERS.total, ge=0)


class Config(BaseModel):
    """Settings of ``dataflows run metadata``."""

    model_config = ConfigDict(extra="forbid")
    output: str = Field(description="directory of the run: the dataset is output/metadata")
    wikipedia: Listed = Field(default_factory=list, description="pages-articles XML dumps")
    pageviews: Listed = Field(default_factory=list, description="hourly page-view files")
    wordnets: str = Field("builtin", description="builtin, none, or files of lemmas")
    languages: Listed | None = Field(
        None, description="Wikipedia codes to build; all that the sources hold if not given"
    )
    english_wordnet: Literal["synsets", "lemmas"] = Field(
        "synsets", description="English entries: names of synsets (as published) or all lemmas"
    )
    tokenizers: dict[str, str] = Field(
        default_factory=dict, description="MODULE:FUNCTION of your own segmenter, by Wikipedia code"
    )
    english: English = Field(default_factory=English)
    others: Others = Field(default_factory=Others)
    buckets: int = Field(
        64, ge=1, le=100_000, description="parts of the counts; one fits in memory"
    )
    limit: int | None = Field(
        None, ge=1, description="take only the first articles of each dump, lines of each hour"
    )


def graph(config: Config) -> Graph:
    """The stages of a run. UsageError and InputError before anything is read."""
    _check_languages(config)
    stages: list[Stage] = []
    if config.wikipedia:
        stages.append(_ngrams(config))
    if config.pageviews:
        stages.append(_titles(config))
    stages.append(_metadata(config, tuple(stage.name for stage in stages)))
    return Graph(NAME, tuple(stages))


def _check_languages(config: Config) -> None:
    for code in config.languages or []:
        if code not in WIKIPEDIAS:
            import difflib

            near = difflib.get_close_matches(code, WIKIPEDIAS, n=3, cutoff=0.3)
            raise UsageError(
                f"languages={code}: not the code of a Wikipedia; did you mean {' or '.join(near)}?"
            )
    if not config.wikipedia and not config.pageviews and config.wordnets == "none":
        raise UsageError("nothing to build from: give wikipedia=, pageviews= or wordnets=")


def _ngrams(config: Config) -> Stage:
    inputs = only_languages(
        find_inputs("wikipedia", config.wikipedia), config.languages, "wikipedia"
    )
    wikis = sorted({one.wiki for one in inputs})
    chosen = {wiki: resolve(wiki, config.tokenizers) for wiki in wikis}
    reader = extractor()
    packages = sorted(
        {name for t in chosen.values() for name in t.name.split(" + ") if "." in t.version}
        - set(config.tokenizers.values())
    )
    return Stage(
        "ngrams",
        "ngrams",
        (),
        {
            "tokenizers": {wiki: t.to_json() for wiki, t in chosen.items()},
            "own_tokenizers": {w: t for w, t in config.tokenizers.items() if w in wikis},
            "extractor": reader.to_json(),
            "chain": "bigrams do not span two articles",
            "score": "n12 / (n1 * n2); PMI = log2(score * tokens)",
            "buckets": config.buckets,
            "limit": config.limit,
        },
        f"{_JOBS}.ngrams:counted_ngrams",
        libraries=("mwparserfromhell", "numpy", "polars", "pyarrow", *packages),
        licences=(WIKIPEDIA_LICENCE,),
        warnings=tuple(_substitutes({"wikitext": reader} | chosen)),
        pinned=_pins(inputs),
    )


def _substitutes(chosen: dict[str, Tokenizer]) -> list[str]:
    return [
        f"{what}: {t.name} {t.version} stands in for {t.substitute_for}"
        for what, t in chosen.items()
        if t.substitute_for
    ]


def _titles(config: Config) -> Stage:
    return Stage(
        "titles",
        "ngrams",
        (),
        {
            "languages": sorted(config.languages) if config.languages is not None else None,
            "minimum_hourly": dict(pageviews.MINIMUM_HOURLY),
            "buckets": config.buckets,
            "limit": config.limit,
        },
        f"{_JOBS}.titles:summed_views",
        libraries=("numpy", "polars", "pyarrow"),
        licences=(WIKIPEDIA_LICENCE,),
        pinned=_pins(find_inputs("pageviews", config.pageviews)),
    )


def _metadata(config: Config, inputs: tuple[str, ...]) -> Stage:
    files: list[Input] = []
    licences: list[str] = []
    about: dict[str, Any] = {}
    if config.wordnets == "builtin":
        found = [w.key for w in builtin.wordnets()]
        if config.languages is not None:
            found = [key for key in found if key in config.languages]
        licences = builtin.licences(found)
        about = {w.key: w.blake2b for w in builtin.wordnets() if w.key in found}
    elif config.wordnets != "none":
        files = find_inputs("wordnets", [config.wordnets])
        files = only_languages(files, config.languages, "wordnets")
        found = sorted({one.wiki for one in files})
    else:
        found = []
    return Stage(
        "metadata",
        "metadata",
        inputs,
        {
            # Where files lie is no part of what the lists are; their pins are.
            "wordnets": config.wordnets if not files else "files",
            "wordnet_digests": about,
            "wordnet_languages": found,
            "english_wordnet": config.english_wordnet,
            "languages": sorted(config.languages) if config.languages is not None else None,
            "rules": {"english": config.english.model_dump(), "others": config.others.model_dump()},
            "bigram_fraction_of": "kept unigrams",
            "keys": sorted(set(LANGUAGE_MAP.values()) - {OTHER}),
            "repairs": list(wordnets.REPAIRS),
        },
        f"{_JOBS}.entries:selected_entries",
        libraries=("numpy", "polars", "pyarrow"),
        licences=tuple(licences),
        pinned=_pins(files),
    )


def _pins(inputs: Sequence[Input]) -> tuple[dict[str, Any], ...]:
    return tuple(dict(one.pin) for one in inputs)
