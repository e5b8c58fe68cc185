"""`trainer logits TEACHER path=TOKENS output=DIR`: a teacher's likeliest tokens, for distillation."""

from __future__ import annotations

import argparse
import os
import sys

HELP = "keep a teacher's top-k logits of token data, for objective.logits= of distillation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "teacher", metavar="TEACHER", help="a folder of transformers with Llama or GPT-2"
    )
    parser.add_argument(
        "settings",
        metavar="key=value",
        nargs="*",
        help="path=TOKENS output=DIR top_k=, temperature=, context=, split=, precision=, batch=, share=i/n",
    )


def run(args: argparse.Namespace) -> int:
    """Make what is not there yet; exit code 0."""
    from schemas.settings import build, parse_overrides
    from trainer.launching.place import place_of
    from trainer.teacher.caching import Settings, cache

    hint = f"settings: {', '.join(Settings.model_fields)}"
    settings = build(Settings, parse_overrides(args.settings), "logits", hint=hint)
    result = cache(args.teacher, settings, place_of(os.environ))
    if result.manifest is None:
        print(
            f"{result.made} units made; {result.missing} are missing: start the other shares, or one "
            "with share=0/1, which commits the dataset",
            file=sys.stderr,
        )
        return 0
    head = result.manifest
    tokens = sum(head.stats["tokens"].values())
    print(
        f"{settings.output}: {tokens:,} tokens, top {head.config['top_k']} of "
        f"{head.config['vocabulary']:,} at temperature {head.config['temperature']:g}, "
        f"{head.totals['bytes']:,} bytes, digest {head.digest[:12]}"
    )
    return 0
