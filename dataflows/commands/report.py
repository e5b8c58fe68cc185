"""`dataflows report OUTPUT`: one self-contained HTML page about a finished (or partial) run."""

from __future__ import annotations

import argparse

HELP = "write one HTML page about a run: funnel, languages, head and tail, pairs, lineage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("output", metavar="OUTPUT", help="output= of a run, or one dataset")
    parser.add_argument(
        "--with",
        dest="datasets",
        action="append",
        default=[],
        metavar="NAME=LOCATION",
        help="a dataset that the run started from, as in records-000=/data/laion/records: the funnel "
        "then begins with what came into ingest",
    )
    parser.add_argument(
        "--out", metavar="PATH", help="file to write (default: OUTPUT/report.html, replaced)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    from curation.page.place import put
    from dataflows.report.render import report
    from schemas.storage import storage

    root = storage(args.output)
    page = report(args.output, args.datasets)
    # Inside a dataset only its own files: its page goes beside it.
    one = root.exists("manifest.json")
    place = root.sibling(f"{root.name}.report.html").url if one else root.path("report.html")
    print(put(page, place, args.out))
    return 0
