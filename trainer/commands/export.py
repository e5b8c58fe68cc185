"""`trainer export RUN`: the trained model as a folder of `transformers`."""

from __future__ import annotations

import argparse

HELP = "write a run's checkpoint as a folder that transformers loads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="output directory of a run")
    parser.add_argument("--to", metavar="FOLDER", help="local folder (default: RUN/export)")
    parser.add_argument(
        "--step", metavar="N", type=int, help="of this step's checkpoint (default: the latest)"
    )
    parser.add_argument(
        "--replace", action="store_true", help="put it in the place of a former export"
    )


def run(args: argparse.Namespace) -> int:
    """Export and print the folder; exit code 0."""
    from trainer.export import export

    print(export(args.run, args.to, args.replace, args.step))
    return 0
