"""`dataflows replay DATASET [key=value ...]`: runs just the dead letters of a stage again."""

from __future__ import annotations

import argparse

HELP = "run a dataset's dead letters again, with today's code and the settings given"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DATASET and its settings."""
    parser.add_argument("dataset", help="a stage's dataset that has dead letters beside it")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="for example max_text_bytes=1000000"
    )


def run(args: argparse.Namespace) -> int:
    """Commit the dataset anew with the rows that pass now; exit code 0."""
    from dataflows.engine.replay import replay
    from dataflows.engine.run import command_line, say
    from schemas.dataset import open_dataset
    from schemas.settings import parse_overrides
    from schemas.storage import storage

    place = storage(args.dataset)
    before = open_dataset(place).manifest
    head = replay(place, parse_overrides(args.settings), {"command": command_line()})
    left = place.sibling(f"{place.name}.dead_letters")
    failed = open_dataset(left).manifest.rows if left.exists("manifest.json") else 0
    same = head.digest == before.digest
    say(
        f"{place.url}: {before.rows:,} rows before, {head.rows:,} now, {failed:,} dead letters left; "
        + (
            "nothing changed"
            if same
            else "what is made from it is due: run that again with --replace"
        )
    )
    print(head.digest)
    return 0
