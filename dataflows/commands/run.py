"""`dataflows run RECIPE key=value ...`: brings every stage of a recipe to a commit."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "run a recipe: every stage that is due, one job and one commit each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that ``run`` and ``plan`` share, and those of ``run``."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--replace", action="store_true", help="supersede datasets of another configuration"
    )


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE, its settings, and where it runs."""
    parser.add_argument("recipe", help="see `dataflows list`")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings, for example p=0.06"
    )
    parser.add_argument("--config", help="YAML file of settings; key=value overrides it")
    parser.add_argument(
        "--runner", default="inprocess", help="inprocess, prism, portable, dataflow, spark, flink"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes of the in-process runner (default 1)"
    )
    parser.add_argument("--limit", type=int, help="take only the first N records of each input")
    parser.epilog = "Beam's own flags follow a bare --, as in: -- --project=P --region=R"


def graph_of(args: argparse.Namespace) -> tuple[Any, Any]:
    """The checked configuration and the graph of stages that the arguments ask for."""
    from dataflows.pipelines import recipe
    from schemas import settings as configuration

    module = recipe(args.recipe)
    words, _ = split_words(args.settings)
    tree = configuration.load_file(args.config) if args.config else {}
    tree = configuration.merge(tree, configuration.parse_overrides(words))
    if args.limit is not None:
        tree["limit"] = args.limit
    config = configuration.build(module.Config, tree, args.recipe)
    return config, module.graph(config)


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Settings, and Beam's flags (everything that starts with --)."""
    for position, word in enumerate(words):
        if word.startswith("--"):
            return words[:position], words[position:]
    return words, []


def run(args: argparse.Namespace) -> int:
    """Run the recipe; exit code 0 when every stage is committed."""
    from dataflows.engine.run import RunSettings, command_line, run_graph
    from dataflows.engine.runners import RunnerChoice, validate

    _, flags = split_words(args.settings)
    choice = RunnerChoice(args.runner, args.workers, tuple(flags))
    config, graph = graph_of(args)
    validate(choice, config.output)
    run_graph(graph, RunSettings(config.output, choice, args.replace, command_line()))
    print(config.output)
    return 0
