"""How a model continues a context: the log-likelihood of a given continuation, and whether it is greedy.

Tokens are split as EleutherAI's lm-evaluation-harness splits them: spaces at the end of the context
go to the continuation, context and continuation are tokenised as one text, the continuation's tokens
are those after as many as the context alone has, and what does not fit the model is cut on the left.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.errors import InputError, UsageError

if TYPE_CHECKING:
    from trainer.evaluation.language import Answer, Ids, LanguageModel


def continued(
    loaded: LanguageModel, pairs: Sequence[tuple[str, str]], label: str
) -> list[tuple[float, bool]]:
    """Return for each (context, continuation) ln p(continuation | context), and whether greedy
    decoding would give it.

    UsageError for a continuation without tokens, or longer than the model's context.
    """
    answers: list[Answer] = loaded.answers([split(loaded, *pair) for pair in pairs], label)
    return [(float(one.log_probs.sum()), bool(one.greedy.all())) for one in answers]


def split(loaded: LanguageModel, context: str, continuation: str) -> tuple[Ids, int]:
    """Return the tokens that the model reads, and how many of the last are the continuation's."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole = loaded.encode(context + continuation)
    if context:
        before = len(loaded.encode(context))
    else:  # something must stand before the first token
        whole, before = [loaded.eos or 0, *whole], 1
    k = len(whole) - before
    if not 0 < k <= loaded.context:
        raise UsageError(
            f"a continuation of {k} tokens ({continuation[:40]!r}): it needs from 1 to the model's "
            f"{loaded.context}"
        )
    return np.array(whole[-(loaded.context + 1) :], np.int64), k


def records(path: str, file: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Read JSON lines (gzipped or not) from a file, or from the one named ``file`` in a folder.

    InputError for what is no such file, or a record without one of the fields.
    """
    place = Path(path).expanduser()
    place = place / file if place.is_dir() else place
    found = []
    # Not splitlines: a line separator of Unicode inside a string ends no record.
    for number, line in enumerate(text_of(place, path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            found.append({name: record[name] for name in fields})
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{place}, line {number}: no JSON object with {', '.join(fields)}: {line[:80]!r}"
            ) from None
    if not found:
        raise InputError(f"{place} has no record")
    return found


def text_of(place: Path, path: str) -> str:
    """The text of a file, gzipped or not; ``path`` is what the user gave. InputError if it has none."""
    try:
        data = place.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"path={path}: {place} cannot be read: {error}") from None
