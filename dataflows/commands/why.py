"""`dataflows why OUTPUT ID`: what became of a pair, image or document, stage by stage, and by which
number."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflows.report.source import Run
    from dataflows.report.traces import Refused, TextTrace

HELP = "say what became of a pair, an image, a URL or a document, and by which number"

_HEX32 = re.compile(r"[0-9a-fA-F]{32}")
_POSITION = (
    "the byte at which its record begins in the decompressed file (JSONL, text), or its row (Parquet), "
    "counted from 0"
)
_HEX64 = re.compile(r"[0-9a-fA-F]{64}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "output", metavar="OUTPUT", help="output= of a metaclip2, fetch, ingest or tokens run"
    )
    parser.add_argument(
        "id",
        metavar="ID",
        help="pair id or image id (32 hex digits), SHA-256 of an image, or URL; of a tokens run a "
        f"document id (32 hex digits), or FILE:POSITION, {_POSITION}",
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
    order: its column is read, from the smallest dataset on. The dead letters of ingest are read whole.
    Of a tokens run see `dataflows.report.why_document`.
    """
    from curation.page.text import terminal
    from dataflows.report.source import open_run
    from dataflows.report.why import trace
    from dataflows.report.why_ingest import ingested
    from schemas.errors import InputError

    found = open_run(args.output)
    found.add_all(args.datasets)
    if found.get("documents") is not None:
        return _of_tokens(found, args.output, args.id)
    if found.get("pool") is None and found.get("fetched") is not None:
        return _of_fetch(found, args.output, args.id)
    if found.get("pool") is None and not ingested(found):
        raise InputError(
            f"{args.output} has no pool, no documents and is no fetch or ingest: `why` follows the rows of a "
            "metaclip2, fetch, ingest or tokens run; give its output="
        )
    image, pair = _resolve(found, args.id)
    told = trace(found, image, args.id)
    texts = [text for text in told.texts if pair in (None, text.pair)]
    if not texts and not told.refused:
        for note in told.notes:
            print(f"note: {terminal(note, 500)}", file=sys.stderr)
        raise InputError(
            f"{terminal(args.id)} is nowhere in {args.output} (image id {image.hex()})"
            f"{_uncounted(found)}"
        )
    if texts:
        print(f"image {image.hex()}, {len(told.texts)} text{'s' if len(told.texts) != 1 else ''}")
    else:
        print(f"image {image.hex()}, rejected by ingest")
    for text in texts:
        _print(text)
    for record in told.refused:
        _print_refused(record)
    for note in told.notes:
        print(f"note: {terminal(note, 500)}")
    return 0


def _of_tokens(run: Run, output: str, text: str) -> int:
    from curation.page.text import terminal
    from dataflows.report.why_document import by_id, by_place, place_of
    from schemas.errors import InputError, UsageError

    place = place_of(run, text)
    if place is None and not _HEX32.fullmatch(text):
        raise UsageError(
            f"{terminal(text)}: give a document's id (32 hex digits, as in the column doc_id) or "
            f"FILE:POSITION, the end of an input's path and {_POSITION}"
        )
    told = by_id(run, bytes.fromhex(text)) if place is None else by_place(run, place)
    if not told:
        hint = "" if place is None else f": give {_POSITION}"
        raise InputError(f"{terminal(text)} is nowhere in the input of {output}{hint}")
    for number, one in enumerate(told):
        print(
            f"{chr(10) if number else ''}document {one.pair.hex() if one.pair else 'without an id'}"
        )
        print(f'  "{terminal(one.text[:300], 300)}"')
        print(f"  source {terminal(one.key)}")
        _print_steps(one.steps, one.verdict)
    return 0


def _of_fetch(run: Run, output: str, text: str) -> int:
    from curation.page.text import terminal
    from dataflows.report.why_fetch import tell
    from dataflows.report.why_ingest import refused
    from schemas.errors import InputError
    from schemas.ids import image_id

    if _HEX64.fullmatch(text):
        image = image_id(sha256=bytes.fromhex(text))
    else:
        image = bytes.fromhex(text) if _HEX32.fullmatch(text) else image_id(url=text)
    lines = tell(run, image)
    records = refused(run, image, text)
    if not lines and not records:
        raise InputError(
            f"{terminal(text)} was not asked for in {output} (image id {image.hex()}); give a URL as it "
            f"stands in the input, or an image id{_uncounted(run)}"
        )
    print(f"image {image.hex()}{'' if lines else ', rejected by ingest'}")
    for line in lines:
        print(f"  {terminal(line, 700)}")
    for record in records:
        _print_refused(record)
    return 0


def _uncounted(run: Run) -> str:
    """What ingest rejected without a row, as the end of an error; else nothing."""
    from dataflows.report.why_ingest import without_row

    return "".join(f"; {line}" for line in without_row(run))


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


def _print_refused(record: Refused) -> None:
    from curation.page.text import terminal

    print()
    for text in record.texts:
        print(f'"{terminal(text, 300)}"')
    if record.url:
        print(f"  {terminal(record.url, 300)}")
    _print_steps(record.steps(), record.verdict)


def _print(text: TextTrace) -> None:
    from curation.page.text import terminal

    print()
    print(f'"{terminal(text.text, 300)}"')
    print(f"  key {terminal(text.key)}{f', {terminal(text.url, 300)}' if text.url else ''}")
    if text.pair is not None:
        print(f"  pair {text.pair.hex()}")
    _print_steps(text.steps, text.verdict)


def _print_steps(steps: list[tuple[str, str]], verdict: str) -> None:
    from curation.page.text import terminal

    for stage, line in steps:
        print(f"  {stage:<8} {terminal(line, 500)}")
    print(f"  => {terminal(verdict, 300)}")
