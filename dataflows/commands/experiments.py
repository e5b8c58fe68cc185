"""`dataflows experiments metaclip2`: small experiments whose outcome is known, run and checked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HELP = "run a recipe's small experiments and check what they should show"

_SYNTHETIC = (
    ("language", "language", "s"),
    ("texts", "texts", ",d"),
    ("entries", "entries", ",d"),
    ("t_shared", "t shared", "d"),
    ("tail_shared", "tail", ".3f"),
    ("keep_shared", "keep", ".3f"),
    ("share_shared", "share", ".3f"),
    ("t", "t from p", "d"),
    ("tail", "tail", ".3f"),
    ("gap", "tail - p", "+.4f"),
    ("step", "step", ".4f"),
    ("keep", "keep", ".3f"),
    ("share", "share", ".3f"),
    ("top_entry_raw", "top raw", ".1%"),
    ("top_entry_kept", "top kept", ".1%"),
)
_CAPTIONS = (("p", "p", ".2f"), ("t", "t", "d"), ("tail", "tail", ".3f"), ("keep", "keep", ".3f"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", choices=["metaclip2"], help="whose experiments")
    parser.add_argument("--seeds", type=_positive, default=5, help="seeds 0 to N-1 (default 5)")
    parser.add_argument(
        "--captions",
        type=Path,
        help="JSON Lines or Parquet with a column `captions` (default: the shipped stamps)",
    )
    parser.add_argument(
        "--language", default="fr", help="language of the captions and their wordnet (default fr)"
    )
    parser.add_argument("--json", type=Path, help="also write all numbers here")


def run(args: argparse.Namespace) -> int:
    """Run the experiments; exit code 1 if one does not show what it should."""
    from curation.metaclip2 import experiments
    from curation.metadata import builtin
    from curation.pool import stamps
    from schemas.errors import CheckFailed

    path = args.captions or stamps.folder() / "captions.jsonl"
    captions = experiments.read_captions(path, args.language)
    entries = builtin.load([args.language])["text"].to_pylist()
    print("A. Synthetic pool: one shared threshold against a threshold from p for each language")
    print(f"Generator: {experiments.GENERATOR}")
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for seed in range(args.seeds):
        table = experiments.run_synthetic(seed)
        faults += experiments.synthetic_faults(table)
        found = table.to_pylist()
        print(f"\nseed {seed}, p = {found[0]['p']:.4f}")
        _print(_SYNTHETIC, found)
        rows += found
    print(f"\nB. Captions ({args.language}) of {path} against the shipped wordnet and 0 to 99")
    report = experiments.run_captions(captions, entries, args.language)
    print(
        f"{report.texts:,} texts, {report.entries:,} entries, "
        f"{report.microseconds_per_text:.1f} us a text, {report.matches_per_text:.1f} matches a "
        f"text, {report.unmatched:.1%} of texts unmatched, {report.entries_hit:,} entries hit, "
        f"top entries {', '.join(report.top_entries)}"
    )
    _print(_CAPTIONS, report.thresholds)
    for warning in report.warnings:
        print(f"warning: {warning}")
    if args.json:
        result = {
            "synthetic": {"generator": experiments.GENERATOR, "rows": rows, "faults": faults},
            "captions": {"file": str(path), **asdict(report)},
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if faults:
        raise CheckFailed("; ".join(faults))
    print(
        f"\nShown for each of {args.seeds} seeds: with a shared t the tail rises as languages get "
        f"smaller; with t from p it is within {experiments.GAP} of p in every language, and the "
        "English share rises."
    )
    return 0


def _print(columns: Sequence[tuple[str, str, str]], rows: Sequence[Mapping[str, Any]]) -> None:
    cells = [[title for _, title, _ in columns]]
    cells += [[format(row[name], form) for name, _, form in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a number of at least 1")
    return value
