"""`dataflows verify DATASET`: hash everything again, name what is missing, changed or strange."""

from __future__ import annotations

import argparse

HELP = "check a dataset, or every dataset of a run: checksums, counts, strangers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("location", metavar="DATASET", help="a dataset, or the output= of a run")


def run(args: argparse.Namespace) -> int:
    """Print one line a dataset and one a fault; CheckFailed (exit code 1) if there is any."""
    from curation.page.text import terminal
    from dataflows.report.source import dataset_places
    from schemas.errors import CheckFailed, HeadraceError
    from schemas.manifest import Manifest
    from schemas.verify import verify

    faulty = faults = 0
    places = dataset_places(args.location)
    for name, place in places.items():
        found = verify(place)
        if found:
            faulty += 1
            faults += len(found)
            for line in found:
                print(f"{terminal(name)}: {terminal(line, 2000)}")
            continue
        try:
            manifest = Manifest.load(place)
        except HeadraceError as error:  # changed between the two readings
            raise CheckFailed(str(error)) from None
        print(f"{terminal(name)}: as committed, {manifest.rows:,} rows, {manifest.digest[:12]}")
    if faults:
        raise CheckFailed(
            f"{faults} fault{'s' if faults > 1 else ''} in {faulty} of {len(places)} dataset"
            f"{'s' if len(places) > 1 else ''}; restore what is named above, or build it anew"
        )
    return 0
