"""`trainer parity RECIPE key=value ...`: shows that ranks, stages and packing do not change a run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from schemas.errors import CheckFailed, UsageError

HELP = "show that ranks, ZeRO stages, accumulation and packing give the same loss and gradients"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--config", metavar="FILE", help="settings in a YAML file")
    parser.add_argument("--ranks", default="1,2,4", help="numbers of processes (default: 1,2,4)")
    parser.add_argument("--stages", default="0,1,2,3", help="ZeRO stages (default: all)")
    parser.add_argument("--json", metavar="FILE", help="also write the table there")


def run(args: argparse.Namespace) -> int:
    """Print the table; exit code 5 if a difference is more than rounding."""
    from trainer.config import load
    from trainer.parity.compare import LIMITS, rows
    from trainer.parity.variants import BATCH, variants

    ranks, stages = (_numbers(name, getattr(args, name)) for name in ("ranks", "stages"))
    if wrong := [stage for stage in stages if stage > 3]:
        raise UsageError(f"--stages {wrong[0]}: ZeRO has the stages 0 to 3")
    with tempfile.TemporaryDirectory(prefix="headrace-parity-") as folder:
        given = {word.partition("=")[0] for word in args.settings}
        usual = {"output": f"{folder}/run", "batch.size": BATCH, "length.steps": 1}
        words = [f"{name}={value}" for name, value in usual.items() if name not in given]
        config = load(args.recipe, [*words, *args.settings], args.config)
        if uneven := [n for n in ranks if config.batch.size % n]:
            raise UsageError(
                f"--ranks {uneven[0]}: batch.size={config.batch.size} does not split evenly over them"
            )
        chosen = list(variants(config, ranks, stages))
        width = max(len(variant.name) for variant in chosen)
        heads = "".join(f"{name:>12}" for name in LIMITS)
        print(f"{'':<{width}}{heads}   largest relative difference to plain PyTorch in one process")
        found = []
        for row in rows(config, chosen, Path(folder), lambda line: print(line, file=sys.stderr)):
            numbers = "".join(f"{getattr(row, name):>12.1e}" for name in LIMITS)
            verdict = "" if row.holds else f"   differs: {row.worst}"
            print(f"{row.variant:<{width}}{numbers}{verdict}", flush=True)
            found.append(row)
    limits = "".join(f"{limit:>12.0e}" for limit in LIMITS.values())
    print(f"{'at most':<{width}}{limits}")
    faults = [row.variant for row in found if not row.holds]
    values = {
        "rows": [dataclasses.asdict(row) for row in found],
        "limits": LIMITS,
        "faults": faults,
    }
    if args.json:
        Path(args.json).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if faults:
        raise CheckFailed(f"parity: {len(faults)} of {len(found)} variants differ: {faults[0]}")
    return 0


def _numbers(name: str, text: str) -> list[int]:
    """Whole numbers by commas."""
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < (1 if name == "ranks" else 0):
        raise UsageError(f"--{name} {text}: give whole numbers by commas, as in --{name} 1,2")
    return found
