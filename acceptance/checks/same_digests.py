"""`same_digests RUN RUN ...`: every stage of every run has the same manifest digest."""

from __future__ import annotations

import sys
from pathlib import Path

from acceptance.checks.common import finish, manifests


def main(folders: list[str]) -> int:
    runs = [manifests(Path(folder)) for folder in folders]
    faults = []
    if not runs[0]:
        faults.append(f"{folders[0]} holds no committed dataset")
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        if run.keys() != runs[0].keys():
            faults.append(
                f"{folder} and {folders[0]} differ in stages: {run.keys() ^ runs[0].keys()}"
            )
        for stage in run.keys() & runs[0].keys():
            digests = [each[stage]["digest"][:16] for each in (runs[0], run)]
            if digests[0] != digests[1]:
                faults.append(f"{stage}: {folders[0]} has {digests[0]}, {folder} has {digests[1]}")
    values = {
        "runs": len(runs),
        "stages": len(runs[0]),
        "curated_rows": runs[0].get("curated", {}).get("totals", {}).get("rows"),
        "runners": [
            f"{run['curated']['run']['runner']}-{run['curated']['run']['workers']}"
            for run in runs
            if "curated" in run
        ],
    }
    return finish(values, faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
