"""`dataflows what-if OUTPUT p=0.03 t_en=500`: the set that other thresholds would give."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curation.metaclip2.whatif import Estimate

HELP = "estimate set size and language mix for other thresholds, from counts and sample"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("output", metavar="OUTPUT", help="output= of a metaclip2 run")
    parser.add_argument(
        "settings", nargs="+", metavar="p=P | t_en=T", help="values to try, as in p=0.03 t_en=500"
    )
    parser.add_argument(
        "--languages", type=int, default=12, metavar="N", help="languages to list (default 12)"
    )


def run(args: argparse.Namespace) -> int:
    """Print one table for each value: size and language shares with their 95 % intervals."""
    from dataflows.report.estimates import estimates
    from dataflows.report.source import open_run

    p, t_en = _values(args.settings)
    found = open_run(args.output)
    own = found.stats.get("balance", {}).get("p")
    for number, one in enumerate(estimates(found, p, t_en)):
        if number:
            print()
        _show(one, own, args.languages)
    return 0


def _values(words: list[str]) -> tuple[list[float], list[int]]:
    from schemas.errors import UsageError

    p: list[float] = []
    t_en: list[int] = []
    for word in words:
        name, _, raw = word.partition("=")
        for value in raw.split(","):
            try:
                if name == "p":
                    p.append(float(value))
                elif name == "t_en":
                    t_en.append(int(value))
                else:
                    raise UsageError(f"{word!r}: give p=0.03 or t_en=500, or several of them")
            except ValueError:
                kind = "a number such as 0.06" if name == "p" else "a whole number such as 500"
                raise UsageError(f"{word!r}: {name} must be {kind}") from None
    return p, t_en


def _show(one: Estimate, own: float | None, most: int) -> None:
    from curation.page.numbers import whole
    from curation.page.text import terminal

    t_en = "no English" if one.t_en is None else f"t_en = {whole(one.t_en)}"
    mark = " (this run's)" if own is not None and abs(one.p - own) < 1e-12 else ""
    print(f"p = {one.p:.6g}{mark}, {t_en}, mode {one.mode}, threshold {one.threshold}")
    kept = _percent(one.expected / one.texts if one.texts else None)
    print(f"  {whole(one.expected)} of {whole(one.texts)} matched texts ({kept})", end="")
    print(f", 95 % of draws within {whole(one.low)} to {whole(one.high)}")
    order = sorted(one.languages.items(), key=lambda item: (-item[1].expected, item[0]))
    print(f"  {'':<6} {'t':>9} {'tail':>8} {'texts':>13} {'kept':>13}  {'95 %':<27} share, 95 %")
    for key, language in order[:most]:
        interval = f"{whole(language.low)} to {whole(language.high)}"
        print(
            f"  {terminal(key, 6):<6} {language.t:>9,} {language.tail:>8.4f} {language.texts:>13,} "
            f"{whole(language.expected):>13}  {interval:<27} {_percent(language.share)}, "
            f"{_percent(language.share_low)} to {_percent(language.share_high)}"
        )
    if len(order) > most:
        print(f"  and {len(order) - most} smaller languages (--languages {len(order)})")
    for warning in one.warnings:
        if not warning.partition(": ")[2].startswith("t = 1"):
            print(f"  note: {terminal(warning, 600)}")
    ones = [key for key, language in one.languages.items() if language.t == 1]
    if ones:
        print(f"  note: t = 1, so no tail, in {len(ones)} languages: {', '.join(ones[:40])}")


def _percent(share: float | None) -> str:
    """A percentage with plain spaces, so that output can be searched."""
    from curation.page.numbers import percent

    return percent(share).replace("\u202f", " ")
