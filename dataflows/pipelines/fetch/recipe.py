"""Fetching: configuration, and the stages from URLs to shards with pictures. No Beam here.

input (image_id, url) --> hosts (large ones) --> units --> fetched
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from curation.fetch import FetchOptions
from dataflows.engine.stage import Graph, Stage, Wanted
from dataflows.pipelines.fetch.packing import MOST
from dataflows.pipelines.inputs import check_apart, split_input
from schemas.errors import UsageError
from schemas.ids import HASH_NAME
from schemas.storage import storage

NAME = "fetch"
SUMMARY = "the pictures behind URLs, fetched politely and safely, with a reason for each refusal"
_JOBS = "dataflows.pipelines.fetch"

NO_FILTER = (
    "The pictures are as their hosts sent them: no filter for illegal or adult images is part of this "
    "pipeline. Apply your own before anybody looks at them or trains on them."
)

# What decides the pictures; all other options only decide how they are come by.
_DECIDING = (
    *("image_size", "resize", "only_if_bigger", "encode_format", "encode_quality"),
    *("max_bytes", "max_pixels", "robots", "opt_out", "tdm_reservation", "allow_private"),
)

_NOT_OF_THE_CLIENT = {
    *("input", "output", "unit", "units_at_once", "evaluation", "limit", "size"),
}

_USUAL = FetchOptions(contact="nobody@example.org")


class Config(BaseModel):
    """Settings of ``dataflows run fetch``."""

    model_config = ConfigDict(extra="forbid")
    input: str | list[str] = Field(
        description="committed datasets with image_id and url: matched, curated, records"
    )
    output: str = Field(description="directory of the run: the dataset is output/fetched")
    contact: str = Field(description="e-mail or URL for webmasters; sent with every request")
    size: int = Field(_USUAL.image_size, ge=1, le=16_384, description="pixels, as resize= says")
    resize: str = Field(
        _USUAL.resize, description="border, keep_ratio, keep_ratio_largest, center_crop, no"
    )
    only_if_bigger: bool = Field(_USUAL.only_if_bigger, description="never enlarge")
    encode_format: str = Field(_USUAL.encode_format, description="jpg, png, webp")
    encode_quality: int = _USUAL.encode_quality
    max_bytes: int = Field(_USUAL.max_bytes, description="bytes of one answer")
    max_pixels: int = Field(_USUAL.max_pixels, description="pixels of one image")
    robots: bool = Field(_USUAL.robots, description="obey robots.txt")
    opt_out: list[str] = Field(
        list(_USUAL.opt_out), description="X-Robots-Tag directives that are obeyed"
    )
    tdm_reservation: bool = Field(_USUAL.tdm_reservation, description="obey tdm-reservation: 1")
    timeout: float = Field(_USUAL.timeout, description="seconds without an answer")
    deadline: float = Field(_USUAL.deadline, description="seconds that one URL may take in all")
    requests_per_second: float = Field(_USUAL.requests_per_second, description="of one host")
    connections: int = Field(_USUAL.connections, description="to one host at once")
    concurrency: int = Field(_USUAL.concurrency, description="requests of a worker at once")
    retries: int = _USUAL.retries
    max_redirects: int = _USUAL.max_redirects
    max_retry_after: float = Field(
        _USUAL.max_retry_after, description="seconds that a host may ask us to wait"
    )
    decoders: int = Field(_USUAL.decoders, description="decoding processes of a worker")
    allow_private: list[str] = Field(
        [], description="host:port with a private address that may be asked: your own server"
    )
    units_at_once: int | None = Field(
        None, ge=1, description="units fetched at once on runners other than inprocess"
    )
    unit: int = Field(MOST, ge=1, le=MOST, description="URLs of a unit: what a kill loses at most")
    evaluation: str | None = Field(
        None,
        description="records dataset of evaluation sets: its URLs and image hashes are removed",
    )
    limit: int | None = Field(None, ge=1, description="take only the first rows of each input")

    @field_validator("input")
    @classmethod
    def _split(cls, value: str | list[str]) -> list[str]:
        return split_input(value)

    @field_validator("resize", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: object) -> object:
        return "no" if value is False else value

    @field_validator("opt_out", "allow_private", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value

    def options(self) -> FetchOptions:
        """The options of the client. Raises UsageError for what they refuse."""
        given = self.model_dump(exclude=_NOT_OF_THE_CLIENT)
        return FetchOptions(image_size=self.size, units_at_once=self.units_at_once or 1, **given)


def graph(config: Config) -> Graph:
    """The stages of a run and the committed datasets that it starts from."""
    options: dict[str, Any] = json.loads(config.options().to_json())
    check_apart(config.input, config.output)
    externals = {f"urls-{number:03d}": place for number, place in enumerate(config.input)}
    wanted = {name: Wanted("input", columns=("image_id", "url")) for name in externals}
    _refuse_runs(config)
    evaluation: tuple[str, ...] = ()
    inputs = tuple(externals)
    if config.evaluation is not None:
        externals["evaluation"] = config.evaluation
        wanted["evaluation"] = Wanted("evaluation", "records")
        evaluation = ("evaluation",)
    options["units_at_once"] = config.units_at_once
    deciding = {name: options.pop(name) for name in _DECIDING}
    stages = (
        Stage("hosts", "fetch_hosts", inputs, {"limit": config.limit}, f"{_JOBS}.hosts:hosts"),
        Stage(
            "units",
            "fetch_units",
            (*inputs, "hosts"),
            {"unit": config.unit, "limit": config.limit, "hash": HASH_NAME},
            f"{_JOBS}.units:units",
        ),
        Stage(
            "fetched",
            "fetched",
            ("units", *evaluation),
            {"options": deciding},
            f"{_JOBS}.fetched:fetched",
            libraries=("img2dataset", "numpy", "opencv-python-headless", "pillow", "pyarrow"),
            conserved=("units",),
            warnings=(NO_FILTER,),
            runtime=options,
        ),
    )
    return Graph(NAME, stages, externals, wanted)


def _refuse_runs(config: Config) -> None:
    """Raises UsageError for no input, and for the output of a run, whose datasets lie deeper."""
    if not config.input:
        raise UsageError("input= is empty: name committed datasets with image_id and url")
    for location in config.input:
        place = storage(location)
        if not place.exists("manifest.json"):
            for name in ("matched", "curated", "records"):
                if place.at(name).exists("manifest.json"):
                    raise UsageError(
                        f"input={location} is the output of a run; give one of its datasets, as in "
                        f"{location.rstrip('/')}/{name}"
                    )
