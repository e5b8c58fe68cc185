"""`trainer generate PLACE prompt=...`: text from a trained language model, as it comes."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "continue a text with a language model's run or folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "place",
        metavar="PLACE",
        help="a run's output directory, or a folder of transformers with Llama or GPT-2",
    )
    parser.add_argument(
        "--step",
        metavar="N",
        type=int,
        help="a run's checkpoint of this step (default: the latest)",
    )
    parser.add_argument(
        "settings",
        metavar="key=value",
        nargs="*",
        help='prompt="The city of", tokens=, samples=, temperature=, top_p=, top_k=, seed=',
    )


def run(args: argparse.Namespace) -> int:
    """Print prompt and continuation piece by piece; exit code 0."""
    from schemas.settings import build, parse_overrides
    from trainer.evaluation.language import load_language
    from trainer.generation.sampling import Settings, continuation, pieces, start

    # A prompt is text as typed, also one such as `yes` or `12`.
    words = [word for word in args.settings if not word.startswith("prompt=")]
    tree: dict[str, Any] = parse_overrides(words)
    for word in args.settings:
        if word.startswith("prompt="):
            tree["prompt"] = word.removeprefix("prompt=")
    hint = f"settings: {', '.join(Settings.model_fields)}"
    settings = build(Settings, tree, "generate", hint=hint)
    loaded = load_language(args.place, step=args.step)
    before = start(loaded, settings)
    for sample in range(settings.samples):
        if settings.samples > 1:
            print(f"{'' if not sample else chr(10)}--- {sample + 1} of {settings.samples}")
        print(shown(settings.prompt), end="", flush=True)
        for piece in pieces(loaded.tokenizer, continuation(loaded, settings, sample), before):
            print(shown(piece), end="", flush=True)
        print(flush=True)
    return 0


def shown(text: str) -> str:
    """Text for a terminal, line by line: nothing in it acts (see `curation.page.text.terminal`)."""
    from curation.page.text import terminal

    return "\n".join(terminal(line, len(line)) for line in text.split("\n"))
