"""`real_run RUN`: a run over real input is whole, and its report says what t = 1 means."""

from __future__ import annotations

import html
import sys
from pathlib import Path

from acceptance.checks.common import finish, manifests


def main(folder: str) -> int:
    from schemas.storage import storage
    from schemas.verify import verify

    run = Path(folder)
    heads = manifests(run)
    faults = [f"{name}: {fault}" for name in heads for fault in verify(storage(run / name))]
    if "curated" not in heads:
        return finish({}, [f"{folder} holds no curated dataset"])
    page = (run / "report.html").read_text(encoding="utf-8")
    languages = heads["balance"]["stats"]["languages"]
    ones = sorted(name for name, row in languages.items() if row["t"] == 1)
    warnings = [text for text in heads["balance"]["warnings"] if "t = 1" in text]
    if ones and not warnings:
        faults.append(f"t is 1 for {', '.join(ones)} and no warning says so")
    faults += [f"not in the report: {text}" for text in warnings if html.escape(text) not in page]
    values = {
        "records": heads["records"]["totals"]["rows"],
        "curated_rows": heads["curated"]["totals"]["rows"],
        "languages": len(languages),
        "languages_with_t_1": len(ones),
        "warnings": warnings[:3],
    }
    if not values["curated_rows"]:
        faults.append("no row was kept")
    return finish(values, faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
