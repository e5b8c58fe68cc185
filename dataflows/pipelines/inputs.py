"""The ``input=`` of a recipe: committed datasets, raw files to ingest, or the generated pool."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from dataflows.engine.stage import Stage, Wanted
from schemas.errors import UsageError
from schemas.storage import storage

if TYPE_CHECKING:
    from dataflows.pipelines.metaclip2.recipe import Config


class Columns(BaseModel):
    """Which columns of a raw input hold what; found by their usual names where not given."""

    model_config = ConfigDict(extra="forbid")
    url: str | None = Field(None, description="address of the image")
    text: str | None = Field(None, description="text column, or several separated by commas")
    text_format: Literal["auto", "plain", "json", "list"] = "auto"
    image: str | None = Field(None, description="bytes of the image, or struct<bytes, path>")
    id: str | None = Field(None, description="identity of an image without URL and bytes")
    score: str | None = Field(None, description="a score of yours, for min_score=")
    sha256: str | None = Field(None, description="SHA-256 of the image, hexadecimal")


def split_input(value: str | list[str]) -> list[str]:
    """The locations of ``input=``: separated by commas, unless a file has just that name."""
    if isinstance(value, str):
        value = [value] if os.path.exists(value.strip()) else value.split(",")
    return [part.strip() for part in value if part.strip()]


def check_apart(inputs: str | list[str], output: str) -> None:
    """Raise UsageError if what is written would be read as input by the next run."""
    place = storage(output)
    for location in split_input(inputs) if place.is_local else ():
        if "://" in location or not os.path.isdir(location):
            continue
        folder = storage(location).url
        if place.url == folder or place.url.startswith(folder.rstrip("/") + "/"):
            raise UsageError(
                f"output={output} lies inside input={location}, so the next run would read it: choose "
                "a place outside, or name the input files with a glob"
            )


def is_dataset(location: str) -> bool:
    """Whether a committed dataset lies at ``location``; a file is none.

    Raises UsageError for the output of a run, whose datasets lie one level deeper.
    """
    place = storage(location)
    if place.is_local and os.path.isfile(place.url):
        return False
    if place.exists("manifest.json"):
        return True
    if place.at("records").exists("manifest.json"):
        inner = f"{location.rstrip('/')}/records"
        raise UsageError(f"input={location} is the output of a run; give its records: {inner}")
    return False


def records_stages(
    config: Config, stages: list[Stage], externals: dict[str, str], wanted: dict[str, Wanted]
) -> tuple[str, ...]:
    """Add the stage that makes records, or the committed datasets that hold them; returns their names.

    Several inputs keep their order: it decides which of two equal pairs stays.
    """
    if config.input == ["generated"]:
        pool = config.pool.model_dump(exclude={"image_size"})
        if config.limit is not None:
            pool["records"] = min(pool["records"], config.limit)
        from curation.pool import stamps
        from curation.pool.scene import WARNING

        stages.append(
            Stage(
                "records",
                "records",
                (),
                {"pool": pool, "stamps": stamps.load().digest},
                "dataflows.pipelines.metaclip2.generated:generated",
                seed=config.seed,
                licences=(stamps.LICENCE,),
                warnings=(WARNING,),
            )
        )
        return ("records",)
    if "generated" in config.input:
        raise UsageError("input=generated stands alone: it cannot be mixed with other inputs")
    if not config.input:
        raise UsageError("input= is empty: name committed datasets, files, globs or directories")
    check_apart(config.input, config.output)
    committed = [location for location in config.input if is_dataset(location)]
    if not committed:
        from dataflows.pipelines.ingest.recipe import ingest_stage

        stages.append(ingest_stage(config.input, config.columns, config.format, config.limit))
        return ("records",)
    if len(committed) < len(config.input):
        raw = next(location for location in config.input if location not in committed)
        raise UsageError(
            f"input={raw}: not a committed dataset, while {committed[0]} is one; ingest the raw files first "
            "with `dataflows run ingest input=... output=...` and name its records"
        )
    names = tuple(f"records-{number:03d}" for number in range(len(committed)))
    externals.update(zip(names, committed, strict=True))
    wanted.update(dict.fromkeys(names, Wanted("input", "records")))
    return names
