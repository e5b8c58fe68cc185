"""Export of a committed dataset of pairs to what other tools read.

`url-text`: Parquet of URL and caption, the input of img2dataset. `webdataset`: tar shards that
webdataset and open_clip read. Deterministic: the same dataset and options give the same bytes.

A local export is built in `OUTPUT.partial` and renamed when whole, so OUTPUT holds all of it or
does not exist; on an object store `export.json`, written last, says so. The same command continues
an export that was cut off, at the first file that is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from curation.export_files import Missing, UrlText, WebDataset, Writer
from schemas.dataset import Dataset, file_digest, open_dataset
from schemas.errors import ConflictError, InputError, IntegrityError, UsageError
from schemas.storage import Storage, storage

FORMATS: Final = {"url-text": "url-text", "img2dataset": "url-text", "webdataset": "webdataset"}
"""Names a user may give, and the format they mean."""

HEAD: Final = "export.json"
"""Key of the file that says what an export holds; an export without it is not whole."""

SIZES: Final = "sizes.json"
"""Samples of each tar shard, where open_clip looks for them."""

SCHEMAS: Final = ("pool", "matches", "matched", "curated")
_PLAN, _RECEIPTS = ".export/plan.json", ".export/files"
_MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class ExportOptions:
    """How to export. `rows_per_file` counts rows of the dataset, before any are left out."""

    format: str
    rows_per_file: int = 10_000
    skip_missing: bool = False
    url_column: str = "url"
    caption_column: str = "caption"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(
                f"--format {self.format} is unknown; use one of {', '.join(sorted(FORMATS))}"
            )
        if not 1 <= self.rows_per_file <= _MAX_ROWS:
            raise UsageError(
                f"--rows-per-file {self.rows_per_file} is not between 1 and {_MAX_ROWS}"
            )
        if not self.url_column or not self.caption_column:
            raise UsageError("--url-column and --caption-column must not be empty")
        taken = {"pair_id", "image_id", "key", "language", "metadata", "keep_probability", "score"}
        names = {self.url_column, self.caption_column}
        if len(names) < 2 or names & taken:
            raise UsageError(
                f"columns {self.url_column!r} and {self.caption_column!r} clash with each other "
                f"or with {', '.join(sorted(taken))}; choose other names"
            )

    @property
    def kind(self) -> str:
        """The format meant."""
        return FORMATS[self.format]

    def writer(self) -> Writer:
        """The format's writer."""
        if self.kind == "webdataset":
            return WebDataset()
        return UrlText(self.url_column, self.caption_column)


@dataclass(frozen=True)
class Export:
    """A finished export: `head` is what `export.json` says; `fresh` tells if this call made it."""

    root: Storage
    head: dict[str, Any]
    fresh: bool


def export(
    dataset: str | Path | Dataset,
    output: str | Path,
    options: ExportOptions,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Write the export, or find that it is there. `progress` is told (files done, files).

    Raises InputError when the dataset is not one of pairs, lacks images (webdataset) or has rows
    without image or URL and they are not skipped; UsageError when OUTPUT holds something else;
    ConflictError when it holds another export; IntegrityError when a finished export lost files.
    """
    source = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    root = storage(output)
    _check_source(source, options)
    plan = _plan(source, options)
    if (head := _finished(root, plan)) is not None:
        return Export(root, head, fresh=False)
    work = _work_place(root)
    _claim(work, plan)
    files = -(-len(source) // options.rows_per_file) or 1
    receipts = []
    for number in range(files):
        try:
            receipts.append(_file(source, work, options, number))
        except InputError:
            _give_up(work)  # with these options it can never be finished
            raise
        if progress:
            progress(number + 1, files)
    head = _head(source, plan, receipts)
    if options.kind == "webdataset":
        sizes = {receipt["file"]: receipt["rows"] for receipt in receipts}
        work.replace(SIZES, _json(sizes))
    work.create(HEAD, _json(head))
    _finish(root, work, plan)
    return Export(root, head, fresh=True)


def _give_up(work: Storage) -> None:
    """Remove what an export that cannot be finished has written."""
    for key in work.list():
        work.delete(key)
    if work.is_local:
        shutil.rmtree(work.url, ignore_errors=True)


def _check_source(source: Dataset, options: ExportOptions) -> None:
    name, url = source.spec.name, source.storage.url
    if name not in SCHEMAS:
        raise InputError(f"{url} is a dataset of {name}; export reads pairs ({', '.join(SCHEMAS)})")
    if options.kind == "webdataset" and "image" not in source.schema.names:
        raise InputError(
            f"{url} is a dataset of {name}, which holds no images, and webdataset needs them; "
            "export the curated dataset, or use --format url-text and fetch with img2dataset"
        )


def _plan(source: Dataset, options: ExportOptions) -> dict[str, Any]:
    """What decides the bytes of the export."""
    settings = {**asdict(options), "format": options.kind}
    if options.kind == "webdataset":
        del settings["url_column"], settings["caption_column"]
    manifest = source.manifest
    return {
        "dataset": {
            "digest": manifest.digest,
            "rows": len(source),
            "schema": dict(manifest.schema),
        },
        "options": settings,
        "version": 1,
    }


def _finished(root: Storage, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The head of a whole export at root, checked; None if there is none."""
    try:
        head = json.loads(root.read_bytes(HEAD))
        files = head["files"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(
            f"{root.path(HEAD)} is damaged; delete {root.url} and export again"
        ) from None
    for key, value in plan.items():
        if head.get(key) != value:
            raise ConflictError(
                f"{root.url} holds another export: {key} there is {head.get(key)}, asked for is "
                f"{value}; give another --output or delete it"
            )
    for entry in files:
        try:
            found = root.size(entry["file"])
        except FileNotFoundError:
            found = None
        if found != entry["bytes"]:
            raise IntegrityError(
                f"{root.path(entry['file'])} has {found} bytes, {HEAD} says {entry['bytes']}; "
                f"delete {root.url} and export again"
            )
    return head


def _work_place(root: Storage) -> Storage:
    """Where the files are written. Raises UsageError when the output is in use."""
    if root.is_local:
        path = Path(root.url)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(
                f"{path} exists and is not an export; give an --output that is new or empty"
            )
        return root.sibling(f"{root.name}.partial")
    if not root.exists(_PLAN) and (found := root.list()):
        raise UsageError(
            f"{root.url} holds {found[0]} and is not an export; give an empty --output"
        )
    return root


def _claim(work: Storage, plan: dict[str, Any]) -> None:
    """Leave the plan beside the files, so that only the same export continues them."""
    if work.create(_PLAN, _json(plan)) or work.read_bytes(_PLAN) == _json(plan):
        return
    raise ConflictError(
        f"{work.url} holds an unfinished export of another dataset or with other options; finish "
        "it with its own command, or delete it"
    )


def _file(source: Dataset, work: Storage, options: ExportOptions, number: int) -> dict[str, Any]:
    """Write one file if it is not there; return its receipt."""
    writer = options.writer()
    key, receipt_key = f"{number:05d}.{writer.suffix}", f"{_RECEIPTS}/{number:05d}.json"
    with contextlib.suppress(FileNotFoundError, ValueError):
        receipt = json.loads(work.read_bytes(receipt_key))
        if work.size(key) == receipt["bytes"]:
            return receipt
    start = number * options.rows_per_file
    stop = min(start + options.rows_per_file, len(source))
    missing = Missing(source.storage.url, source.schema, writer.needs, options.skip_missing)
    # A file without a receipt was left by an export that died, maybe of another library version.
    work.delete(key)
    scratch = work.scratch()
    try:
        tables = _rows(source, writer.columns(source.schema.names), start, stop)
        done = writer.write(tables, scratch, missing)
        digest, size = file_digest(scratch), scratch.stat().st_size
        work.create_from_file(key, scratch, consume=True)
    finally:
        scratch.unlink(missing_ok=True)
    receipt = {
        "file": key,
        "rows": done.rows,
        "skipped": done.skipped,
        "bytes": size,
        "sha256": digest,
    }
    work.replace(receipt_key, _json(receipt))
    return receipt


def _rows(source: Dataset, columns: list[str], start: int, stop: int) -> Iterator[pa.Table]:
    """Rows start to stop of the whole dataset; opens only the shards and row groups they are in."""
    first = 0
    for index, shard in enumerate(source.shards()):
        if first < stop and first + shard.rows > start:
            at = first
            for group, rows in enumerate(source.row_group_rows(index)):
                low, high = max(start - at, 0), min(stop - at, rows)
                if low < high:
                    yield source.read_row_group(index, group, columns).slice(low, high - low)
                at += rows
        first += shard.rows


def _head(source: Dataset, plan: dict[str, Any], receipts: list[dict[str, Any]]) -> dict[str, Any]:
    skipped: dict[str, int] = {}
    for receipt in receipts:
        for reason, count in receipt["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    rows = sum(receipt["rows"] for receipt in receipts)
    if rows + sum(skipped.values()) != len(source):
        raise IntegrityError(
            f"{rows} rows written and {sum(skipped.values())} left out are not the {len(source)} "
            f"of {source.storage.url}; delete the unfinished export and start again"
        )
    manifest = source.manifest
    return {
        **plan,
        "name": source.storage.name,
        "rows": rows,
        "skipped": skipped,
        "files": receipts,
        "licence": manifest.licence,
        "warnings": manifest.warnings,
    }


def _finish(root: Storage, work: Storage, plan: dict[str, Any]) -> None:
    """Make the export visible under its own name."""
    if not root.is_local:
        for key in work.list(posixpath.dirname(_PLAN)):
            work.delete(key)
        return
    folder = Path(work.url)
    for name in (".export", ".headrace"):
        shutil.rmtree(folder / name, ignore_errors=True)
    try:
        os.rename(folder, root.url)
    except OSError:
        # Another process may have finished the same export first.
        if _finished(root, plan) is None:
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return
    directory = os.open(Path(root.url).parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"
