"""`trainer report RUN`: one self-contained HTML page about a run, finished or not."""

from __future__ import annotations

import argparse

HELP = "write one HTML page about a run: loss, accuracy, examples, throughput, lineage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="output directory of a run")
    parser.add_argument(
        "--out", metavar="PATH", help="file to write (default: RUN/report.html, replaced)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and print where it is; exit code 0."""
    from curation.page.place import put
    from schemas.storage import storage
    from trainer.report.render import report

    print(put(report(args.run), storage(args.run).path("report.html"), args.out))
    return 0
