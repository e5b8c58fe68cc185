"""`dataflows report OUTPUT`: one self-contained HTML page about a finished (or partial) run."""

from __future__ import annotations

import argparse

HELP = "write one HTML page about a run: funnel, languages, head and tail, pairs, lineage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("output", metavar="OUTPUT", help="output= of a run, or one dataset")
    parser.add_argument(
        "--out", metavar="PATH", help="file to write (default: OUTPUT/report.html, replaced)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    import posixpath

    from dataflows.report.numbers import size
    from dataflows.report.render import report
    from schemas.errors import UsageError
    from schemas.storage import storage

    root = storage(args.output)
    page = report(args.output).encode("utf-8")
    if args.out is None:
        # Inside a dataset only its own files: its page goes beside it.
        one = root.exists("manifest.json")
        place = root.sibling(f"{root.name}.report.html").url if one else root.path("report.html")
    else:
        place = storage(args.out).url
        if args.out.endswith("/") or _is_directory(place):
            raise UsageError(f"--out {args.out} is a directory; name a file, such as report.html")
    folder, name = posixpath.split(place)
    storage(folder).replace(name, page)
    print(f"{place} ({size(len(page))})")
    return 0


def _is_directory(place: str) -> bool:
    import os

    return os.path.isdir(place)
