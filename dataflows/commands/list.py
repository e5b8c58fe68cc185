"""`dataflows list`: the recipes, and the settings of one of them."""

from __future__ import annotations

import argparse

HELP = "list the recipes, or the settings of one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="show this recipe's settings")


def run(args: argparse.Namespace) -> int:
    """Print one line a recipe, or one line a setting of the named recipe."""
    from dataflows.pipelines import RECIPES, recipe
    from schemas.described import aligned, settings

    if not args.recipe:
        print("\n".join(aligned(list(RECIPES.items()))))
        return 0
    module = recipe(args.recipe)
    print(f"dataflows run {args.recipe} key=value ...: {RECIPES[args.recipe]}\n")
    print("\n".join(aligned(list(settings(module.Config)))))
    return 0
