"""`dataflows inspect DATASET`: what a dataset is, what it holds and where it comes from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.dataset import Dataset

HELP = "show a dataset's schema, totals, counts, parents, settings and first rows"

_CELL = 160
_SETTING = 200
_LICENCES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("location", metavar="DATASET", help="a dataset, or the output= of a run")
    parser.add_argument(
        "--rows", type=int, default=3, metavar="N", help="first rows to show (default 3)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the dataset, or one line for each dataset of a run. Reads N rows and no more."""
    from dataflows.report.source import dataset_places
    from schemas.dataset import open_dataset
    from schemas.errors import UsageError
    from schemas.storage import storage

    if not 0 <= args.rows <= 10_000:
        raise UsageError(f"--rows {args.rows}: give a number from 0 to 10000")
    places = dataset_places(args.location)
    if storage(args.location).exists("manifest.json"):
        lines = _dataset(open_dataset(args.location), args.rows)
    else:
        lines = _run([open_dataset(place) for place in places.values()])
    for line in lines:
        print(line)
    return 0


def _run(datasets: list[Dataset]) -> Iterator[str]:
    from curation.page.numbers import size
    from curation.page.text import terminal

    width = max(len(dataset.storage.name) for dataset in datasets)
    for dataset in datasets:
        manifest = dataset.manifest
        yield (
            f"{terminal(dataset.storage.name):<{width}}  {manifest.rows:>14,} rows  "
            f"{size(manifest.totals['bytes']):>9}  {manifest.digest[:12]}  "
            f"{manifest.schema['name']} v{manifest.schema['version']}"
        )


def _dataset(dataset: Dataset, rows: int) -> Iterator[str]:
    from curation.page.numbers import size
    from curation.page.text import terminal

    manifest = dataset.manifest
    totals = manifest.totals
    yield f"{terminal(dataset.storage.url)}"
    yield f"schema    {manifest.schema['name']} v{manifest.schema['version']}: {dataset.spec.doc}"
    yield (
        f"totals    {totals['rows']:,} rows, {size(totals['bytes'])}, {totals['shards']:,} "
        f"shard{'s' if totals['shards'] != 1 else ''}"
    )
    yield f"digest    {manifest.digest}"
    yield f"recipe    {terminal(' '.join(str(v) for v in manifest.recipe.values()))}"
    if manifest.seed is not None:
        yield f"seed      {manifest.seed}"
    for parent in manifest.parents:
        yield f"parent    {terminal(parent['name'])} {terminal(parent['digest'])}"
    for pin in manifest.inputs[:20]:
        yield f"input     {terminal(str(pin.get('path')))} {pin.get('bytes'):,} bytes {pin.get('checksum')}"
    if len(manifest.inputs) > 20:
        yield f"input     and {len(manifest.inputs) - 20:,} more"
    for key, value in sorted(manifest.config.items()):
        yield f"config    {terminal(key)} = {terminal(json.dumps(value, ensure_ascii=False), _SETTING)}"
    for row in manifest.counts:
        what = " ".join(part for part in (row["unit"], row["kind"], row["reason"]) if part)
        yield f"count     {row['count']:>14,}  {terminal(what)}"
    for name, blob in sorted(manifest.blobs.items()):
        yield f"blob      {terminal(name)} {size(blob['bytes'])} {blob['digest'][:12]}"
    for warning in manifest.warnings:
        yield f"warning   {terminal(warning, 2000)}"
    for licence in manifest.licence[:_LICENCES]:
        yield f"licence   {terminal(licence, 500)}"
    if len(manifest.licence) > _LICENCES:
        yield f"licence   and {len(manifest.licence) - _LICENCES} more: see README.md beside the data"
    width = max(len(name) for name in dataset.schema.names)
    for field in dataset.schema:
        yield f"column    {field.name:<{width}}  {field.type}{'' if field.nullable else ' not null'}"
    for number, values in enumerate(_first(dataset, rows)):
        yield f"row {number}"
        for name, value in values.items():
            yield f"          {name:<{width}}  {_cell(value)}"


def _first(dataset: Dataset, rows: int) -> Iterator[dict[str, Any]]:
    left = rows
    for table in dataset.tables() if rows else ():
        yield from table.slice(0, left).to_pylist()
        left -= table.num_rows
        if left <= 0:
            return


def _cell(value: Any) -> str:
    """A value on one line: ids as hex, pictures as their size, text without control characters."""
    from curation.page.text import terminal

    if isinstance(value, bytes):
        return value.hex() if len(value) <= 32 else f"{len(value):,} bytes"
    if isinstance(value, str):
        return terminal(value, _CELL)
    if isinstance(value, list):
        shown = ", ".join(_cell(item) for item in value[:12])
        return f"[{shown}{f', … {len(value) - 12} more' if len(value) > 12 else ''}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_cell(item)}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value)
