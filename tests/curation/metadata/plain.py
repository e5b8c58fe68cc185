"""The metadata build as plain loops over strings and dicts: what the vectorised code must equal."""

from __future__ import annotations

import math
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable

from curation.metadata.select import Rules

PUNCTUATION = set(string.punctuation) | set("，。、；：？¿！“”‘’（）【】《》〈〉「」『』～—")
RANGES = [
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2CEB0, 0x2EBEF), (0xF900, 0xFAFF), (0x2E80, 0x2EFF), (0x2F00, 0x2FDF),
    (0x2FF0, 0x2FFF), (0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF),
    (0x0F00, 0x0FFF),
]  # fmt: skip
UNSPACED = ["bo", "dz", "ja", "km", "lo", "my", "ryu", "th", "zh", "zh_classical", "zh_yue"]
PAIRS = ["()", "[]", "{}", "“”", "‘’", "（）", "【】", "《》", "〈〉", "「」", "『』"]


def all_punctuation(text: str) -> bool:
    return all(c in PUNCTUATION for c in text)


def default_tokens(text: str) -> list[str]:
    tokens, current = [], ""
    for c in text:
        isolated = c in PUNCTUATION or any(low <= ord(c) <= high for low, high in RANGES)
        if not isolated and not c.isspace():
            current += c
            continue
        if current:
            tokens.append(current)
        current = ""
        if isolated:
            tokens.append(c)
    return [*tokens, current] if current else tokens


def count_ngrams(
    texts: list[str], segment: Callable[[str], list[str]] | None = None
) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Spec 3.3; the chain starts anew in each text."""
    unigrams: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for text in texts:
        text = re.sub(r"(&lt;.*?&gt;|<.*?>)", "", text)
        if segment is None:
            tokens = default_tokens(text)
        else:
            tokens = [token for piece in text.split() for token in segment(piece)]
        previous = None
        for token in tokens:
            token = token.strip()
            if not token:
                continue
            odd = segment is not None and (
                token[0] in PUNCTUATION or any((p[0] in token) != (p[1] in token) for p in PAIRS)
            )
            if all_punctuation(token) or odd:
                previous = None
                continue
            unigrams[token] += 1
            if previous is not None:
                bigrams[previous, token] += 1
            previous = token
    return unigrams, bigrams


def nltk_pmi(unigrams: Counter[str], bigrams: Counter[tuple[str, str]]) -> dict[str, float]:
    """NLTK's BigramAssocMeasures.pmi, over integers."""
    total = sum(unigrams.values())
    return {
        f"{a} {b}": math.log2(n * total) - math.log2(unigrams[a] * unigrams[b])
        for (a, b), n in bigrams.items()
    }


def title_views(lines: list[bytes], english_least: int = 50) -> dict[str, Counter[str]]:
    """Spec 3.5; malformed lines, which end the released script, are left out."""
    views: dict[str, Counter[str]] = defaultdict(Counter)
    for raw in lines:
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError:
            continue
        fields = line.split(" ")
        if line.startswith('"" ') or len(fields) != 4 or not re.fullmatch("[0-9]{1,18}", fields[2]):
            continue
        wiki = fields[0].replace(".m", "").split(".")[0].replace("-", "_")
        title, count = fields[1].strip().replace("_", " "), int(fields[2])
        if count == 0 or ":" in title or (wiki == "en" and count < english_least):
            continue
        views[wiki][title] += count
    return views


def select(
    wiki: str,
    lemmas: list[str],
    unigrams: dict[str, int],
    bigrams: dict[str, float],
    titles: dict[str, int],
    rules: Rules,
) -> dict[str, str]:
    """Spec 3.2 and 3.1: text -> source, in order of precedence. `bigrams` holds PMI."""
    chosen = {str(n): "" for n in range(100)}

    def walk(scores: dict, source: str, least: float, cap: int | None, limit: int | None) -> int:
        taken = 0
        ranked = sorted(((s.strip(), x) for s, x in scores.items()), key=lambda r: (-r[1], r[0]))
        for text, score in ranked:
            if taken == cap or (rules.total is not None and len(chosen) >= rules.total):
                break
            if not text or all_punctuation(text) or score < least:
                continue
            if text in chosen or (limit is not None and len(text) > limit):
                continue
            chosen[text] = source
            taken += 1
        return taken

    def cap(most: int | None, fraction: float | None, of: int) -> int | None:
        limits = [
            x for x in (most, None if fraction is None else int(of * fraction)) if x is not None
        ]
        return min(limits, default=None)

    cleaned = {x.replace("_", " ").replace("+", ""): 0 for x in lemmas}
    walk(cleaned, "w", 0, None, None)
    kept = walk(
        unigrams,
        "u",
        rules.unigram_count,
        cap(rules.unigram_cap, rules.unigram_fraction, len(unigrams)),
        256,
    )
    joined: dict[str, float] = {}
    for text, score in bigrams.items():
        text = text.replace(" ", "") if wiki in UNSPACED else text
        joined[text] = max(score, joined.get(text, -math.inf))
    least = -math.inf if rules.bigram_pmi is None else rules.bigram_pmi
    walk(joined, "b", least, cap(rules.bigram_cap, rules.bigram_fraction, kept), 256)
    walk(
        titles, "t", rules.title_views, cap(rules.title_cap, rules.title_fraction, len(titles)), 256
    )
    return chosen


def fragile(piece: str) -> list[str]:
    """A segmenter with a fault: it splits at hyphens and cannot bear one word."""
    if "dort" in piece:
        raise ValueError("cannot segment 'dort'")
    return piece.split("-")
