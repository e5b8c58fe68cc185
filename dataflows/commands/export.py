"""`dataflows export DATASET --format FORMAT --output DIR`: pairs for other tools to read."""

from __future__ import annotations

import argparse
import sys

HELP = "write a dataset as URL-and-text Parquet (img2dataset) or webdataset tar shards"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", help="a committed dataset of pairs, for example out/curated")
    parser.add_argument(
        "--format",
        required=True,
        help="url-text (also named img2dataset): Parquet of URL and caption; webdataset: tar "
        "shards of image, text and JSON, for webdataset and open_clip",
    )
    parser.add_argument("--output", required=True, help="a directory or URL that is new or empty")
    parser.add_argument(
        "--rows-per-file", type=int, default=10_000, help="rows of the dataset a file (10000)"
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out pairs without image (webdataset) or URL (url-text), and count them",
    )
    parser.add_argument("--url-column", default="url", help="name of the URL column (url)")
    parser.add_argument(
        "--caption-column", default="caption", help="name of the caption column (caption)"
    )


def run(args: argparse.Namespace) -> int:
    """Export; exit code 0 when the export is whole."""
    from curation.export import ExportOptions, export

    options = ExportOptions(
        format=args.format,
        rows_per_file=args.rows_per_file,
        skip_missing=args.skip_missing,
        url_column=args.url_column,
        caption_column=args.caption_column,
    )
    done = export(args.dataset, args.output, options, progress=_progress)
    head = done.head
    state = "exported" if done.fresh else "was exported already:"
    print(f"{state} {head['rows']} pairs in {len(head['files'])} files to {done.root.url}")
    for reason, count in sorted(head["skipped"].items()):
        print(f"left out: {count} ({reason})")
    for line in [*head["licence"], *head["warnings"]]:
        print(f"note: {line}")
    return 0


def _progress(done: int, files: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == files else "\r"
        print(f"{done} of {files} files", end=end, file=sys.stderr, flush=True)
