"""`dataflows plan RECIPE key=value ...`: what a run would do, stage by stage, and why."""

from __future__ import annotations

import argparse

from dataflows.commands.run import add_recipe_arguments, graph_of

HELP = "say which stages are finished, which would run, and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Same arguments as ``run``."""
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print one line a stage; exit code 0."""
    from dataflows.engine.plan import plan, superseded
    from schemas.storage import storage

    config, graph = graph_of(args)
    lines = plan(graph, storage(config.output))
    width = max(len(line.stage.name) for line in lines)
    for line in lines:
        digest = line.head.digest[:12] if line.head else "-" * 12
        print(f"{line.stage.name:<{width}}  {line.state:<8}  {digest}  {line.why}")
    if changed := superseded(lines):
        print(f"refused without --replace: {changed.stage.name} is there, and {changed.why}")
    return 0
