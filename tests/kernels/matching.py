"""What the tests of the matching kernel share: running both matchers, and text of all scripts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from curation.metaclip2 import reference
from kernels.matching import Automaton, build
from kernels.matching.classes import Mode, Spacing

SCRIPTS = (
    "abcdeABC012éïøſß",
    "aab  b",
    "дежзЁё",
    "αβγδΩ",
    "ابتثجَّ٠١",
    "אבגד",
    "कखगाि्०१",
    "가나다라한국",
    "犬猫東京市々〆〇𠀀𰀀豈",
    "あいうカメラーｶﾒﾗﾞ𛀀ㇰ",
    "แมวน้ำไทย๑",
    "ລາວພາສາ",
    "ខ្មែរភាសា",
    "မြန်မာစာ",
    "བོད་སྐད",
    "e\u0301o\u0308a\u0302",
    ".,;:?!`'\"()[]-/&_#@",
    "，。、；：？！“”（）「」～—",
    " \t\n\r\u00a0\u3000\u2003\u0085\x1c",
    "\x00\x01\x7f\u200b\u200d\ufeff😀👩‍🚀",
)


def automaton(
    tmp_path: Path, entries: Sequence[str], mode: Mode, spacing: Spacing = "isolating"
) -> Automaton:
    path = tmp_path / "test.automaton"
    build(entries, mode=mode, path=path, spacing=spacing)
    return Automaton.open(path)


def split(found: tuple, texts: Sequence | pa.Array) -> list[list[int]]:
    """The kernel's answer as a list of ids for each text; checks its shape."""
    offsets, ids = found
    assert offsets.dtype == "int64"
    assert ids.dtype == "uint32"
    assert len(offsets) == len(texts) + 1
    assert offsets[0] == 0
    assert offsets[-1] == len(ids)
    return [ids[a:b].tolist() for a, b in pairwise(offsets)]


def compare(
    tmp_path: Path,
    entries: Sequence[str],
    texts: Sequence[str | bytes | None],
    mode: Mode,
    spacing: Spacing = "isolating",
) -> int:
    """Assert that the kernel and the plain reference agree; returns the number of matches."""
    raw = [t.encode() if isinstance(t, str) else t for t in texts]
    found = split(
        automaton(tmp_path, entries, mode, spacing).match(pa.array(raw, pa.binary())), raw
    )
    expected = reference.match(raw, entries, mode, spacing)
    for text, ours, plain in zip(raw, found, expected, strict=True):
        differing = [entries[i] for i in set(ours) ^ set(plain)]
        assert ours == plain, f"{mode}, {spacing}: {text!r}: {differing!r}"
    return sum(map(len, found))


def words(rng: random.Random, length: int, scripts: int = 3) -> str:
    """Text of a few scripts, mixed character by character and run by run."""
    chosen = rng.sample(SCRIPTS, scripts)
    text = ""
    while len(text) < length:
        text += "".join(rng.choice(rng.choice(chosen)) for _ in range(rng.randint(1, 4)))
        if rng.random() < 0.4:
            text += rng.choice((" ", " ", ",", "-", "  "))
    return text[:length]


def texts_and_entries(seed: int, n_texts: int, n_entries: int) -> tuple[list[str], list[str]]:
    """Random texts of all scripts mixed, and entries, half of them pieces of the texts."""
    rng = random.Random(seed)
    texts = [words(rng, rng.randint(0, 60), rng.randint(1, 4)) for _ in range(n_texts)]
    entries = []
    for i in range(n_entries):
        if i % 2:
            entries.append(words(rng, rng.randint(1, 9), rng.randint(1, 2)))
        else:
            text = rng.choice(texts) or "a"
            start = rng.randrange(len(text))
            entries.append(text[start : start + rng.randint(1, 14)])
    return texts, entries
