"""`trainer plan RECIPE`: what a run will be, without starting it and without a GPU."""

from __future__ import annotations

import argparse
import json

from schemas.errors import UsageError

HELP = "show a run's batch, memory, time and refusals without starting it; alone, the recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="which recipe")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the recipe")
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings, under the words")
    parser.add_argument(
        "--ranks", type=int, default=1, metavar="N", help="processes of the run (default 1)"
    )
    parser.add_argument(
        "--hosts",
        type=int,
        default=1,
        metavar="N",
        help="hosts that they are spread over (default 1)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="predict memory and time on an accelerator, as h100 (default: memory on a CPU)",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="the planner's predictions beside published runs of other trainers",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the plan; exit code 0, or 2 if the run would be refused."""
    from trainer.config import load, recipes

    if args.published:
        return _published(args)
    if args.recipe is None:
        for name, about in recipes().items():
            print(f"{name:<20} {about}")
        return 0
    if args.ranks < 1:
        raise UsageError(f"--ranks {args.ranks}: give 1 or more")
    if args.hosts < 1 or args.ranks % args.hosts:
        raise UsageError(
            f"--hosts {args.hosts}: {args.ranks} ranks do not spread evenly over them; give a divisor of"
            " --ranks"
        )
    if not args.settings and args.config is None and args.recipe in recipes():
        for line in _about(args.recipe):
            print(line)
        return 0
    config = load(args.recipe, args.settings, args.config)
    from trainer.launching.plan import lines, plan

    found = plan(config, args.ranks, args.hosts, args.device)
    if args.json:
        print(json.dumps(found))
    else:
        for line in lines(config, found):
            print(line)
    return UsageError.exit_code if found["refused"] else 0


def _published(args: argparse.Namespace) -> int:
    """Print the predictions of published runs; exit code 0."""
    if args.recipe is not None or args.device is not None:
        raise UsageError(
            "--published is of published runs alone: leave the recipe and --device out"
        )
    from trainer.launching import published

    if args.json:
        print(json.dumps({"runs": list(published.predictions())}))
    else:
        print("\n".join(published.lines()))
    return 0


def _about(recipe: str) -> list[str]:
    """The recipe's file, and all its settings: those of runs, and those of its parts."""
    from importlib import import_module
    from importlib.resources import files

    import yaml

    from schemas.described import aligned, settings
    from trainer.config import PARTS, RunConfig

    text = files("trainer.recipes").joinpath(f"{recipe}.yaml").read_text(encoding="utf-8")
    given = yaml.safe_load(text)
    rows = [row for row in settings(RunConfig) if row[0] not in (*PARTS, "recipe")]
    for kind, modules in PARTS.items():
        module = import_module(modules[given[kind]["name"]])
        rows += settings(module.Settings, f"{kind}.")
    return [text.rstrip(), "", "All settings; the recipe's own are above:", *aligned(rows)]
