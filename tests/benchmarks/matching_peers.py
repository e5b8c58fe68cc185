"""Other Aho-Corasick matchers, from texts to sets of entry ids, as MetaCLIP and as fast as they go.

Keys are the entries as the released code spaces them, texts are spaced one by one inside the timed
call. Each library has one candidate or two; the quicker one of a warm-up is the library's way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ahocorasick
import ahocorasick_rs
import daachorse

from kernels.matching.classes import is_word, normalise, space_entry, space_text

Matcher = Callable[[Sequence[str]], list[set[int]]]


@dataclass(frozen=True)
class Peer:
    """One way of one library: `match` gives the set of ids of each raw text."""

    library: str
    way: str
    match: Matcher


def as_metaclip(entries: Sequence[str]) -> ahocorasick.Automaton:
    """The automaton as MetaCLIP builds it: (id, key) at each key."""
    automaton = ahocorasick.Automaton()
    for i, entry in enumerate(entries):
        key = space_entry(entry)
        automaton.add_word(key, (i, key))
    automaton.make_automaton()
    return automaton


def metaclip(entries: Sequence[str]) -> Peer:
    """pyahocorasick in MetaCLIP's own loop."""
    automaton = as_metaclip(entries)

    def match(texts: Sequence[str]) -> list[set[int]]:
        found = []
        for text in texts:
            ids = set()
            for _, (entry_id, _) in automaton.iter(space_text(text)):
                ids.add(entry_id)
            found.append(ids)
        return found

    return Peer("pyahocorasick", "as MetaCLIP", match)


def candidates(entries: Sequence[str]) -> list[Peer]:
    """The quick ways of all libraries, overlapping matches, no patterns copied."""
    keys = [space_entry(entry) for entry in entries]
    raw = [key.encode() for key in keys]
    ints = ahocorasick.Automaton(ahocorasick.STORE_INTS)
    for i, key in enumerate(keys):
        ints.add_word(key, i)
    ints.make_automaton()
    # A full DFA of half a million keys needs tens of gigabytes; the default picks a compact NFA.
    rs_text = ahocorasick_rs.AhoCorasick(keys, store_patterns=False)
    rs_bytes = ahocorasick_rs.BytesAhoCorasick(raw)
    dart_text = daachorse.CharwiseDoubleArrayAhoCorasick(keys)
    dart_bytes = daachorse.DoubleArrayAhoCorasick(raw)

    def py(texts: Sequence[str]) -> list[set[int]]:
        return [{i for _, i in ints.iter(space_text(t))} for t in texts]

    def rust_text(texts: Sequence[str]) -> list[set[int]]:
        find = rs_text.find_matches_as_indexes
        return [{i for i, _, _ in find(space_text(t), overlapping=True)} for t in texts]

    def rust_bytes(texts: Sequence[str]) -> list[set[int]]:
        find = rs_bytes.find_matches_as_indexes
        return [{i for i, _, _ in find(space_text(t).encode(), overlapping=True)} for t in texts]

    def array_text(texts: Sequence[str]) -> list[set[int]]:
        find = dart_text.find_overlapping
        return [{i for _, _, i in find(space_text(t))} for t in texts]

    def array_bytes(texts: Sequence[str]) -> list[set[int]]:
        find = dart_bytes.find_overlapping
        return [{i for _, _, i in find(space_text(t).encode())} for t in texts]

    return [
        Peer("pyahocorasick", "integers", py),
        Peer("ahocorasick_rs", "text", rust_text),
        Peer("ahocorasick_rs", "bytes", rust_bytes),
        Peer("daachorse", "characters", array_text),
        Peer("daachorse", "bytes", array_bytes),
    ]


def repaired(entries: Sequence[str]) -> Matcher:
    """Mode `repaired` by pyahocorasick: all occurrences, void ones dropped; not timed."""
    automaton = ahocorasick.Automaton()
    for i, entry in enumerate(entries):
        key = normalise(entry)
        if key and key not in automaton:
            automaton.add_word(key, (i, len(key)))
    automaton.make_automaton()

    def inside(text: str, at: int) -> bool:
        return 0 < at < len(text) and is_word(text[at - 1]) and is_word(text[at])

    def match(texts: Sequence[str]) -> list[set[int]]:
        found = []
        for text in map(normalise, texts):
            ids = set()
            for last, (i, size) in automaton.iter(text):
                if not inside(text, last + 1) and not inside(text, last + 1 - size):
                    ids.add(i)
            found.append(ids)
        return found

    return match
