"""Brute-force matching: the definition that the compiled kernel is tested against (spec 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

from curation.metaclip2.text import is_word, normalise, space_entry, space_text
from kernels.matching.classes import Mode, Spacing


def occurs(entry: str, text: str) -> bool:
    """Whether a normalised entry occurs in a normalised text, by the rules of ``repaired``.

    An occurrence is void if one of its edges lies between two word characters.
    """
    at = text.find(entry)
    while at >= 0:
        end = at + len(entry)
        left = at > 0 and is_word(text[at - 1]) and is_word(text[at])
        right = end < len(text) and is_word(text[end - 1]) and is_word(text[end])
        if not left and not right:
            return True
        at = text.find(entry, at + 1)
    return False


def match(
    texts: Sequence[str | bytes | None],
    entries: Sequence[str],
    mode: Mode,
    spacing: Spacing = "isolating",
) -> list[list[int]]:
    """Ids of the entries that occur in each text, ascending; O(texts x entries).

    Blank entries match nothing; of entries equal after normalisation the first one counts. Bytes
    that are no UTF-8 are characters that no entry has.
    """
    keys: dict[str, int] = {}
    for i, entry in enumerate(entries):
        key = normalise(entry) if mode == "repaired" else space_entry(entry, spacing)
        if key.strip(" "):
            keys.setdefault(key, i)
    found = []
    for raw in texts:
        text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw or ""
        if mode == "repaired":
            text = normalise(text)
            found.append(sorted(i for key, i in keys.items() if occurs(key, text)))
        else:
            text = space_text(text)
            found.append(sorted(i for key, i in keys.items() if key in text))
    return found
