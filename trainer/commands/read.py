"""`trainer read DATASET`: what a training run would be served, sample by sample."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from schemas.command_line import suggest
from schemas.errors import UsageError

if TYPE_CHECKING:
    from trainer.reader import Reader

HELP = "print the samples that a training run would be served, and where each lies"
_WIDTH = 60
# Control characters that JSON leaves alone but a terminal may obey; captions are anyone's.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", metavar="DATASET", help="a committed dataset, as in out/curated")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the draw (default 0)")
    parser.add_argument("--epoch", type=int, default=0, help="which epoch (default 0)")
    parser.add_argument("--window", type=int, default=4, help="row groups shuffled together (4)")
    parser.add_argument(
        "--balance",
        choices=["image", "text"],
        help="draw anew by keep_probability, from a matched dataset",
    )
    parser.add_argument("--columns", help="print only these, separated by commas")
    parser.add_argument(
        "--start", type=int, default=0, help="first sample of the epoch (default 0)"
    )
    parser.add_argument("--count", type=int, default=10, help="samples to print (default 10)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, values whole")


def run(args: argparse.Namespace) -> int:
    """Print the samples; exit code 0."""
    from schemas.dataset import open_dataset
    from trainer.reader import Reader

    for name in ("start", "count", "epoch", "seed"):
        if (value := getattr(args, name)) < 0:
            raise UsageError(f"--{name} {value}: give 0 or more")
    dataset = open_dataset(args.dataset)
    columns = args.columns.split(",") if args.columns else None
    if unknown := [name for name in columns or () if name not in dataset.schema.names]:
        hint = suggest(unknown[0], dataset.schema.names)
        raise UsageError(f"--columns {args.columns}: no column {unknown[0]!r}.{hint}")
    reader = Reader(
        dataset, seed=args.seed, window=args.window, columns=columns, balance=args.balance
    )
    if not args.json:
        manifest = dataset.manifest
        drawn = f", balance={args.balance}" if args.balance else ""
        print(f"{args.dataset}: {manifest.schema['name']}, digest {manifest.digest}")
        print(f"{manifest.totals['rows']:,} rows; epoch {args.epoch}, seed {args.seed}{drawn}")
    for row in samples(reader, args.epoch, args.start, args.count):
        print(_text(row) if args.json else _line(row))
    return 0


def samples(reader: Reader, epoch: int, start: int, count: int) -> Iterator[dict[str, Any]]:
    """The samples of an epoch from number `start` on: number, place (if not drawn), values."""
    if not count or not reader.windows:
        return
    batches = reader.batches(count, reader.position(epoch, start))
    for number, values in enumerate(next(batches).table.to_pylist(), start):
        row: dict[str, Any] = {"sample": number}
        if reader.balance is None:
            source = reader.locate(reader.position(epoch, number))
            row["at"] = [source.shard, source.row_group, source.row]
        yield row | {name: _plain(value) for name, value in values.items()}


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
    return json.dumps(value, ensure_ascii=False).translate(_CONTROLS)


def _line(row: dict[str, Any]) -> str:
    """One row for people: the sample's number, its place, then what fits of each value."""
    values = dict(row)
    number, at = values.pop("sample"), values.pop("at", None)
    place = f"shard {at[0]} row group {at[1]} row {at[2]}  " if at else ""
    shown = []
    for name, value in values.items():
        text = _text(value)
        shown.append(f"{name}={text if len(text) <= _WIDTH else text[: _WIDTH - 1] + '…'}")
    return f"{number:>8}  {place}{' '.join(shown)}"
