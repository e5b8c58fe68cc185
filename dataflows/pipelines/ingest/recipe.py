"""Ingest: configuration, and its one stage. Inputs are pinned here; no Beam, and no file is parsed.

files --> records
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from curation.images import PHASH, ImageLimits
from curation.ingest.options import Columns as ColumnNames
from curation.ingest.options import IngestOptions
from curation.ingest.sources import find, pin_sources
from dataflows.engine.stage import Graph, Stage
from dataflows.pipelines.inputs import Columns, check_apart
from schemas.ids import HASH_NAME

NAME = "ingest"
SUMMARY = "raw files (WAT, Parquet, JSONL, webdataset tar, folders) to committed records"

_DEFAULTS = IngestOptions()


class Images(BaseModel):
    """Bounds of images whose bytes are at hand."""

    model_config = ConfigDict(extra="forbid")
    max_bytes: int = Field(_DEFAULTS.images.max_bytes, ge=1, description="bytes of one image")
    max_pixels: int = Field(_DEFAULTS.images.max_pixels, ge=1, description="pixels of one image")
    seconds: float = Field(_DEFAULTS.images.seconds, gt=0, description="time to decode one image")
    memory: int = Field(
        _DEFAULTS.images.memory, ge=2**28, description="bytes of memory of the decoder's process"
    )


class Config(BaseModel):
    """Settings of ``dataflows run ingest``."""

    model_config = ConfigDict(extra="forbid")
    input: str | list[str] = Field(description="files, directories, globs or URLs")
    output: str = Field(description="directory of the run: the dataset is output/records")
    columns: Columns = Field(default_factory=Columns)
    format: Literal["auto", "wat", "parquet", "jsonl", "webdataset", "folder"] = "auto"
    images: Images = Field(default_factory=Images)
    max_record_bytes: int = Field(
        _DEFAULTS.max_record_bytes, ge=1, description="bytes of one line or WARC record"
    )
    unit_bytes: int = Field(_DEFAULTS.unit_bytes, ge=1, description="bytes of input a unit of work")
    licence: list[str] = Field(default_factory=list, description="of the input, for the card")
    limit: int | None = Field(None, ge=1, description="take only the first records of each input")

    @field_validator("licence", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


def graph(config: Config) -> Graph:
    """The one stage of an ingest."""
    check_apart(config.input, config.output)
    stage = ingest_stage(
        config.input,
        config.columns,
        config.format,
        config.limit,
        images=config.images,
        max_record_bytes=config.max_record_bytes,
        unit_bytes=config.unit_bytes,
        licence=tuple(config.licence),
    )
    return Graph(NAME, (stage,))


def ingest_stage(
    inputs: str | list[str],
    columns: Columns,
    format: str | None = None,  # noqa: A002 - the setting's name
    limit: int | None = None,
    *,
    images: Images | None = None,
    max_record_bytes: int = _DEFAULTS.max_record_bytes,
    unit_bytes: int = _DEFAULTS.unit_bytes,
    licence: tuple[str, ...] = (),
) -> Stage:
    """The stage ``records`` over raw files, each pinned. Raises InputError for absent ones."""
    options = IngestOptions(
        format=format or "auto",
        columns=ColumnNames(**{k: v or "" for k, v in columns.model_dump().items()}),
        images=ImageLimits(**(images or Images()).model_dump()),
        max_record_bytes=max_record_bytes,
        unit_bytes=unit_bytes,
        limit=limit,
    )
    pinned = pin_sources(find(inputs, options.format))
    return Stage(
        "records",
        "records",
        (),
        {**options.to_json(), "hash": HASH_NAME, "phash": PHASH},
        "dataflows.pipelines.ingest.records:records",
        libraries=("numpy", "orjson", "pillow", "pyarrow", "warcio"),
        licences=licence,
        pinned=tuple(pin.to_json() for pin in pinned.pins),
    )
