"""`trainer read DATASET`: what a training run would be served, sample by sample."""

from __future__ import annotations

import argparse
import json
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from schemas.command_line import suggest
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.dataset import Dataset
    from trainer.reader import Reader

HELP = "print the samples that a training run would be served, and where each lies"
_WIDTH = 60
_FIRST_COLUMNS = 5
_ROWS = 10_000
_BATCH = 100  # bounds memory, whatever --rows is
# Captions are anyone's. Controls, direction overrides and other unseen characters are escaped;
# joiners stay, Persian, Indic scripts and emoji need them.
_JOINERS = "\u200b\u200c\u200d"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", metavar="DATASET", help="a committed dataset, as in out/curated")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the draw (default 0)")
    parser.add_argument("--epoch", type=int, default=0, help="which epoch (default 0)")
    parser.add_argument(
        "--window",
        type=int,
        help="rows shuffled together (default: 128 MiB of rows, 65536 at most)",
    )
    parser.add_argument(
        "--draw",
        choices=["image", "text"],
        help="draw anew by keep_probability, from a matched dataset",
    )
    parser.add_argument(
        "--position", type=int, default=0, metavar="K", help="first sample to print (default 0)"
    )
    parser.add_argument(
        "--rows", type=int, default=10, metavar="N", help="samples to print (default 10)"
    )
    parser.add_argument("--columns", help="print these, separated by commas (default: the first)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, values whole")


def run(args: argparse.Namespace) -> int:
    """Print the samples; exit code 0."""
    from schemas.dataset import open_dataset
    from trainer.reader import Reader

    if not 0 <= args.rows <= _ROWS:
        raise UsageError(f"--rows {args.rows}: give a number from 0 to {_ROWS}")
    dataset = open_dataset(args.dataset)
    columns = _columns(dataset, args.columns, args.json)
    reader = Reader(
        dataset,
        seed=args.seed,
        epoch=args.epoch,
        window=args.window,
        draw=args.draw,
        columns=columns,
    )
    if args.rows and (args.position or len(dataset)):
        reader.locate([args.position])  # a position past the end is refused before anything is said
    if not args.json:
        manifest = dataset.manifest
        drawn = f", draw {args.draw}" if args.draw else ""
        print(_safe(f"{dataset.storage.url}: {manifest.schema['name']}, digest {manifest.digest}"))
        print(
            f"{len(dataset):,} rows; epoch {args.epoch}, seed {args.seed}, window {reader.window:,}{drawn}"
        )
    for row in samples(reader, args.position, args.rows):
        print(_text(row) if args.json else _line(row))
    return 0


def samples(reader: Reader, position: int, rows: int) -> Iterator[dict[str, Any]]:
    """The samples of an epoch from ``position`` on: position (``sample``), values, and ``at``:
    [shard, row group, row of the shard]."""
    if not rows:
        return
    for batch in reader.batches(min(rows, _BATCH), start=position):
        places = reader.locate(batch.positions)
        for i, values in enumerate(batch.table.slice(0, rows).to_pylist()):
            # Names that no schema's column has: `position`, `shard` and `row` are columns of some.
            at = [int(places.shard[i]), int(places.group[i]), int(places.row[i])]
            row: dict[str, Any] = {"sample": int(batch.positions[i]), "at": at}
            yield row | {name: _plain(value) for name, value in values.items()}
        rows -= min(rows, batch.table.num_rows)
        if not rows:
            return


def _columns(dataset: Dataset, named: str | None, everything: bool) -> list[str] | None:
    names = dataset.schema.names
    if named is None:
        own = dataset.spec.id_column
        first = [own, *(name for name in names if name != own)] if own else names
        return None if everything else first[: _FIRST_COLUMNS + 1]
    columns = named.split(",")
    if unknown := [name for name in columns if name not in names]:
        raise UsageError(
            f"--columns {named}: no column {unknown[0]!r}.{suggest(unknown[0], names)}"
        )
    return columns


def _plain(value: Any) -> Any:
    """A JSON value: ids in hexadecimal, pictures by their size."""
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 32 else f"<{len(value):,} bytes>"
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _text(value: Any) -> str:
    """JSON on one line that is safe to show."""
    return _safe(json.dumps(value, ensure_ascii=False))


def _safe(text: str) -> str:
    """``text`` with unseen characters as JSON's escapes."""
    return "".join(c if _shown(c) else _escape(c) for c in text)


def _shown(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def _escape(char: str) -> str:
    raw = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{raw[i : i + 2].hex()}" for i in range(0, len(raw), 2))


def _line(row: dict[str, Any]) -> str:
    """One row for people: the sample's position, its place, then what fits of each value."""
    values = dict(row)
    position, (shard, group, at) = values.pop("sample"), values.pop("at")
    shown = []
    for name, value in values.items():
        text = _text(value)
        shown.append(f"{name}={text if len(text) <= _WIDTH else text[: _WIDTH - 1] + '…'}")
    return f"{position:>8}  shard {shard} group {group} row {at}  {' '.join(shown)}"
