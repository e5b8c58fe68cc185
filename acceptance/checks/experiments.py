"""`experiments FILE`: what `dataflows experiments --json FILE` measured, by language, and its order."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from acceptance.checks.common import finish

LANGUAGES = ("en", "es", "vi", "sw")
COLUMNS = (
    *("t_shared", "tail_shared", "keep_shared", "t", "tail", "gap", "keep"),
    *("top_entry_raw", "top_entry_kept", "share_shared", "share"),
)


def main(file: str) -> int:
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = found["synthetic"]["rows"]
    seeds = sorted({row["seed"] for row in rows})
    faults = []
    for seed in seeds:
        row = {r["language"]: r for r in rows if r["seed"] == seed}
        tails = [row[language]["tail_shared"] for language in LANGUAGES]
        if tails != sorted(set(tails)):
            faults.append(
                f"seed {seed}: shared t, tail masses {tails} do not rise en < es < vi < sw"
            )
        if row["en"]["share"] <= row["en"]["share_shared"]:
            faults.append(f"seed {seed}: the English share does not rise with t from p")
    captions = found["captions"]
    kept = ("texts", "entries", "matches_per_text", "unmatched", "entries_hit", "top_entries")
    values = {
        "seeds": len(seeds),
        "mean_of_seeds": {
            language: {
                name: round(fmean(r[name] for r in rows if r["language"] == language), 4)
                for name in COLUMNS
            }
            for language in LANGUAGES
        },
        "largest_gap": max(abs(row["tail"] - row["p"]) for row in rows),
        "french_captions": {name: captions[name] for name in kept},
        "french_thresholds": captions["thresholds"],
    }
    return finish(values, faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
