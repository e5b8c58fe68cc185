"""`trainer claims list | run NAME | report`: experiments that show what an implementation does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

HELP = "list, run or report the experiments that show what the implementations do"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="the claims and their settings")
    report = actions.add_parser(
        "report", help="the recorded tables; --write puts them in the README"
    )
    report.add_argument("--write", action="store_true", help="renew the tables of README.md")
    report.add_argument(
        "--check", action="store_true", help="exit 1 if README.md or a record is stale"
    )
    for action, text in (
        ("run", "run what is not done yet, and record it"),
        ("task", "do one task"),
    ):
        run = actions.add_parser(action, help=text)
        run.add_argument("name", metavar="NAME")
        if action == "task":
            run.add_argument("task", metavar="TASK")
        run.add_argument("settings", nargs="*", metavar="key=value")
        run.add_argument("--work", type=Path, default=Path("build/claims"), help="scratch folder")
        run.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="tasks at a time")
        run.add_argument("--json", type=Path, help="write the values there, and no record")
        run.add_argument("--slice", help="only these tasks (by commas), compared with the record")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; exit code 1 for a claim that does not hold or a stale record."""
    if args.action == "list":
        return _list()
    if args.action == "report":
        return _report(args)
    return _run(args)


def _list() -> int:
    from trainer.claims import CLAIMS, claim

    for name in CLAIMS:
        module = claim(name)
        print(
            f"{name}: {module.TITLE}\n  metric: {module.METRIC}\n  cost: {module.cost(module.Settings())}"
        )
        for field, info in module.Settings.model_fields.items():
            print(f"  {field:10} {info.description} (default: {info.default})")
    return 0


def _run(args: argparse.Namespace) -> int:
    from schemas.settings import build, parse_overrides
    from trainer.claims import claim, harness, records

    module = claim(args.name)
    if args.action == "run" and args.slice is not None:
        return _slice(args)
    settings: Any = build(
        module.Settings,
        parse_overrides(args.settings),
        args.name,
        hint="see `trainer claims list`",
    )
    if args.action == "task":
        harness.run_one(args.name, args.task, args.work, settings)
        return 0
    work = args.work / harness.version(args.name, settings)
    print(
        f"{module.TITLE}\nmetric: {module.METRIC}\ncost: {module.cost(settings)}", file=sys.stderr
    )
    results = harness.run_tasks(args.name, work, settings, args.lanes)
    values = module.judge(results, settings)
    print("\n".join(module.table(values)))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    else:
        seconds = sum(row["seconds"] for row in results.values())
        path = records.write(args.name, args.settings, values, seconds)
        print(f"written: {path}")
    return 0 if values["holds"] else 1


def _slice(args: argparse.Namespace) -> int:
    """Do some tasks of a recorded claim again, with its settings; prints how far scores are apart."""
    from schemas.errors import UsageError
    from trainer.claims import claim, harness, records

    module, record = claim(args.name), records.load(args.name)
    if args.settings:
        raise UsageError(f"--slice takes the record's settings; leave out {args.settings[0]}")
    settings = module.Settings(**record.values["settings"])
    wanted = tuple(args.slice.split(","))
    try:
        recorded = {task: module.recorded(record.values, task) for task in wanted}
    except (KeyError, ValueError, IndexError):
        raise UsageError(
            f"--slice {args.slice}: the record has no score of such a task; give tasks that train an "
            "arm, such as row5-0"
        ) from None
    # Not where `run` works: what is found there made the record.
    work = args.work / f"slice-{harness.version(args.name, settings)}"
    found = harness.run_tasks(args.name, work, settings, args.lanes, wanted)
    pairs = {task: (found[task]["score"], recorded[task]) for task in wanted}
    apart = max(abs(a - b) for a, b in pairs.values())
    print(json.dumps({"scores": pairs, "largest_difference": round(apart, 4)}))
    return 0


def _report(args: argparse.Namespace) -> int:
    from schemas.errors import CheckFailed
    from trainer.claims import CLAIMS, records

    if args.write or args.check:
        text = records.README.read_text(encoding="utf-8")
        now = records.render(text)
        if args.write:
            records.README.write_text(now, encoding="utf-8")
        elif now != text:
            raise CheckFailed(
                "README.md does not show the recorded tables: run `trainer claims report --write`"
            )
    for name in CLAIMS:
        print("\n".join([f"## {name}", "", *records.section(name), ""]))
        if why := records.stale(name):
            if args.check:
                raise CheckFailed(why)
            print(f"{why}\n")
    return 0
