"""`dataflows why OUTPUT ID`: what became of a pair or image, stage by stage, and by which number."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflows.report.source import Run
    from dataflows.report.traces import TextTrace

HELP = "say what became of a pair, an image or a URL, and by which number"

_HEX32 = re.compile(r"[0-9a-fA-F]{32}")
_HEX64 = re.compile(r"[0-9a-fA-F]{64}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("output", metavar="OUTPUT", help="output= of a metaclip2 or fetch run")
    parser.add_argument(
        "id", metavar="ID", help="pair id or image id (32 hex digits), SHA-256 of an image, or URL"
    )
    parser.add_argument(
        "--with",
        dest="datasets",
        action="append",
        default=[],
        metavar="NAME=LOCATION",
        help="a dataset that the run started from, as in records-000=/data/laion/records",
    )


def run(args: argparse.Namespace) -> int:
    """Print the way of every text; exit code 3 if the id is nowhere in the run.

    An image id, a hash or a URL is found by the footers of the sorted shards. A pair id has no such
    order: its column is read, from the smallest dataset on.
    """
    from curation.page.text import terminal
    from dataflows.report.source import open_run
    from dataflows.report.why import trace
    from schemas.errors import InputError, UsageError

    found = open_run(args.output)
    for word in args.datasets:
        name, equals, location = word.partition("=")
        if not equals:
            raise UsageError(f"--with {word}: give NAME=LOCATION")
        found.add(name, location)
    if found.get("pool") is None and found.get("fetched") is not None:
        return _of_fetch(found, args.output, args.id)
    if found.get("pool") is None:
        raise InputError(
            f"{args.output} has no pool and is no fetch: `why` follows the rows of a metaclip2 or fetch "
            "run; give its output="
        )
    image, pair = _resolve(found, args.id)
    told = trace(found, image)
    texts = [text for text in told.texts if pair in (None, text.pair)]
    if not texts:
        for note in told.notes:
            print(f"note: {terminal(note, 500)}", file=sys.stderr)
        raise InputError(
            f"{terminal(args.id)} is nowhere in {args.output} (image id {image.hex()})"
        )
    print(f"image {image.hex()}, {len(told.texts)} text{'s' if len(told.texts) != 1 else ''}")
    for text in texts:
        _print(text)
    for note in told.notes:
        print(f"note: {terminal(note, 500)}")
    return 0


def _of_fetch(run: Run, output: str, text: str) -> int:
    from curation.page.text import terminal
    from dataflows.report.why_fetch import tell
    from schemas.errors import InputError
    from schemas.ids import image_id

    image = bytes.fromhex(text) if _HEX32.fullmatch(text) else image_id(url=text)
    lines = tell(run, image)
    if not lines:
        raise InputError(
            f"{terminal(text)} was not asked for in {output} (image id {image.hex()}); give a URL as it "
            "stands in the input, or an image id"
        )
    print(f"image {image.hex()}")
    for line in lines:
        print(f"  {terminal(line, 700)}")
    return 0


def _resolve(run: Run, text: str) -> tuple[bytes, bytes | None]:
    """The image id, and the pair id where one was given."""
    from dataflows.report.lookup import image_of_pair, rows_of_image
    from dataflows.report.why_records import image_of_lost_pair
    from schemas.ids import image_id

    if _HEX64.fullmatch(text):
        return image_id(sha256=bytes.fromhex(text)), None
    if not _HEX32.fullmatch(text):
        return image_id(url=text), None
    value = bytes.fromhex(text)
    rows = rows_of_image(run, "pool", value)
    if rows is not None and rows.num_rows:
        return value, None
    for name in ("curated", "matched", "matches", "pool"):
        if run.get(name) is not None:
            image = image_of_pair(run, name, value)
            if image is not None:
                return image, value
    lost = image_of_lost_pair(run, value)
    return (value, None) if lost is None else (lost, value)


def _print(text: TextTrace) -> None:
    from curation.page.text import terminal

    print()
    print(f'"{terminal(text.text, 300)}"')
    print(f"  key {terminal(text.key)}{f', {terminal(text.url, 300)}' if text.url else ''}")
    if text.pair is not None:
        print(f"  pair {text.pair.hex()}")
    for stage, line in text.steps:
        print(f"  {stage:<8} {terminal(line, 500)}")
    print(f"  => {terminal(text.verdict, 300)}")
