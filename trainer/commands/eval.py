"""`trainer eval PLACE NAME [key=value ...]`: score a trained model."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "score a run, or a model of transformers, by a named evaluation"


class _List(argparse.Action):
    """Prints the evaluations with their settings, and exits like --help."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        from trainer.evaluation import registry

        word = rest[1]
        print("\n".join(registry.documented(word if isinstance(word, str) else None)))
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "place",
        metavar="PLACE",
        help="a run's output directory, or a folder of transformers with CLIP, MetaCLIP 2, Llama or GPT-2",
    )
    parser.add_argument("name", metavar="NAME", help="an evaluation: --list shows them")
    parser.add_argument(
        "settings", metavar="key=value", nargs="*", help="settings of the evaluation"
    )
    parser.add_argument(
        "--list", metavar="NAME", nargs="?", action=_List, help="show the evaluations, or one"
    )
    parser.add_argument(
        "--to", metavar="FOLDER", help="write FOLDER/eval/NAME.json (default: PLACE's)"
    )
    parser.add_argument(
        "--step",
        metavar="N",
        type=int,
        help="a run's checkpoint of this step (default: the latest); its results go to "
        "PLACE/eval/step-N unless --to says otherwise",
    )
    parser.add_argument(
        "--against",
        metavar="PLACE",
        help="also the difference to PLACE's result of the same evaluation, paired by class",
    )
    parser.add_argument(
        "--batch", type=int, default=64, help="images or texts read at once (default 64)"
    )
    parser.add_argument(
        "--above-chance",
        action="store_true",
        help="exit with 1 if the score's 95 %% interval is not above chance; with run= of `pool` also "
        "if t = 1 in English",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the result and print it; exit code 0, or 1 if a check fails."""
    from schemas.errors import UsageError
    from schemas.settings import parse_overrides
    from schemas.storage import storage
    from trainer.evaluation import comparison, registry

    if not 1 <= args.batch <= 4096:
        raise UsageError(f"--batch {args.batch}: give a number from 1 to 4096")
    settings = parse_overrides(args.settings)
    _, checked = registry.named(args.name, settings)  # what is wrong is said before torch is loaded
    other = comparison.read(args.against, args.name) if args.against else None
    if other is not None:
        comparison.check(args.name, checked.model_dump(), other, args.against)

    from trainer.evaluation.language import load

    result = registry.evaluate(load(args.place, args.batch, args.step), args.name, settings)
    if other is not None:
        result["against"] = comparison.against(result, other, args.against)
    place = args.place
    if args.step is not None:  # a run's own eval/ says what its latest checkpoint is worth
        place = storage(place).at("eval", f"step-{args.step:08}").url
    path = registry.write(result, args.to or place)
    print("\n".join(registry.table(result)))
    print(f"\n{path}")
    if args.above_chance:
        registry.above_chance(result)
    return 0
