"""Entries and texts of the matching benchmark: real ones, and texts drawn from lexica.

Every text that is not real is a sequence of words drawn from a lexicon by frequency (by Zipf's law
where the lexicon has none), joined as alt texts are. Each lexicon comes from the shared data or from
a package of the `tokenizers` extra.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

SPACED_WORDNETS = [
    "eng",
    "fra",
    "wikt-spa",
    "cat",
    "por",
    "ita",
    "glg",
    "nld",
    "pol",
    "slv",
    "ind",
    "wikt-deu",
    "eus",
    "zsm",
    "slk",
    "wikt-rus",
    "wikt-fin",
    "arb",
    "bul",
    "wikt-tur",
    "wikt-kor",
    "swe",
    "dan",
    "nob",
    "wikt-ukr",
    "sqi",
    "wikt-vie",
    "wikt-hin",
]
SEPARATORS = (" ", ", ", " - ", ". ", ": ", " | ", "/", " (", ") ", "  ", "; ", " & ", '" ', "-")
SEPARATOR_WEIGHTS = (
    0.80,
    0.05,
    0.03,
    0.03,
    0.01,
    0.015,
    0.01,
    0.01,
    0.01,
    0.01,
    0.005,
    0.01,
    0.005,
    0.005,
)


@dataclass
class Corpus:
    """Entries (position = id) and distinct texts of one benchmark."""

    name: str
    entries: list[str]
    texts: list[str]
    real_bytes: int
    drawn_bytes: int


def package_folder(name: str) -> Path | None:
    """Folder of an installed package, not imported."""
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def strings(value: Any) -> Iterator[str]:
    """Every text inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def real_texts(data: Path) -> list[str]:
    """Distinct texts of spaced scripts in the shared data: prose, captions, alt texts, glosses."""
    found: dict[str, None] = {}
    for path in sorted(data.rglob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                found.update((s, None) for s in strings(json.loads(line)) if 12 <= len(s) <= 4000)
    for path in sorted(data.rglob("*.txt.gz")):
        with gzip.open(path, "rt") as lines:
            found.update((s.strip(), None) for s in lines if len(s) > 12)
    glosses = pq.read_table(data / "wordnet-multilingual/eng.parquet", columns=["definition"])
    found.update((s, None) for s in glosses["definition"].unique().to_pylist() if s)
    table = pq.read_table(
        data / "openclipart-alttext/images_alttext.parquet",
        columns=["title", "description", "keywords"],
    )
    found.update((s, None) for s in strings(table.to_pydict()) if len(s) > 3)
    for language, captions in stamp_captions(data).items():
        if language not in ("ja", "zh-CN", "zh-TW", "th", "km"):
            found.update(dict.fromkeys(captions))
    return list(found)


def stamp_captions(data: Path) -> dict[str, list[str]]:
    """Real captions by language tag."""
    table = pq.read_table(data / "tuxpaint-captions/images_captions.parquet", columns=["captions"])
    captions: dict[str, list[str]] = {}
    for row in table["captions"].to_pylist():
        for language, caption in json.loads(row).items():
            captions.setdefault(language, []).append(caption)
    return captions


def lemmas(data: Path, names: Sequence[str]) -> list[str]:
    """Distinct lemmas of some wordnets, in file order."""
    found: dict[str, None] = {}
    for name in names:
        table = pq.read_table(data / f"wordnet-multilingual/{name}.parquet", columns=["lemma"])
        found.update((s.replace("+", ""), None) for s in table["lemma"].to_pylist())
    return [s for s in found if s.strip()]


def zipf(count: int, rng: np.random.Generator) -> np.ndarray:
    """Zipf weights in a random order."""
    return 1.0 / (1 + rng.permutation(count))


def draw(
    words: list[str],
    weights: np.ndarray,
    separators: Sequence[str],
    separator_weights: Sequence[float],
    target_bytes: int,
    rng: np.random.Generator,
) -> list[str]:
    """Distinct texts of 3 to about 40 words, `target_bytes` of UTF-8 in all."""
    cumulative = np.cumsum(weights / weights.sum())
    separator_cumulative = np.cumsum(separator_weights) / np.sum(separator_weights)
    texts: dict[str, None] = {}
    size = 0
    while size < target_bytes:
        lengths = 3 + rng.geometric(0.12, 20_000)
        picks = np.searchsorted(cumulative, rng.random(lengths.sum())).clip(0, len(words) - 1)
        joins = np.searchsorted(separator_cumulative, rng.random(lengths.sum()))
        at = 0
        for length in lengths.tolist():
            parts = [
                words[p] + separators[s]
                for p, s in zip(
                    picks[at : at + length].tolist(), joins[at : at + length].tolist(), strict=True
                )
            ]
            at += length
            text = "".join(parts).strip()
            if text not in texts:
                texts[text] = None
                size += len(text.encode())
    return list(texts)


def mixed(real: list[str], drawn: list[str], rng: np.random.Generator) -> list[str]:
    """Both kinds in one random order."""
    texts = real + drawn
    return [texts[i] for i in rng.permutation(len(texts)).tolist()]


def fill(entries: dict[str, None], more: Iterator[str], count: int) -> None:
    """Add entries until there are `count`."""
    for entry in more:
        if len(entries) >= count:
            return
        if entry.strip():
            entries.setdefault(entry)


def spaced(data: Path, count: int, target_bytes: int, seed: int = 0) -> Corpus:
    """Wordnet lemmas, words and bigrams of real texts; real texts and drawn ones."""
    rng = np.random.default_rng(seed)
    real = real_texts(data)
    english = lemmas(data, SPACED_WORDNETS[:1])
    every = lemmas(data, SPACED_WORDNETS)
    unigrams: Counter[str] = Counter()
    bigrams: Counter[str] = Counter()
    for text in real:
        tokens = [w.strip(".,;:!?()[]\"'*`") for w in text.split()]
        unigrams.update(w for w in tokens if w)
        bigrams.update(f"{a} {b}" for a, b in pairwise(tokens) if a and b)
    entries: dict[str, None] = {str(i): None for i in range(100)}
    fill(entries, iter(english), count)
    fill(entries, (w for w, n in unigrams.most_common(100_000)), count)
    fill(entries, (w for w, n in bigrams.most_common(100_646)), count)
    fill(entries, iter(every), count)
    fill(entries, (w for w, n in bigrams.most_common()), count)
    words = [w for w, n in unigrams.most_common(60_000)]
    weights = np.array([unigrams[w] for w in words], float)
    lemma_weights = zipf(len(every), rng)
    weights = np.concatenate(
        [0.6 * weights / weights.sum(), 0.4 * lemma_weights / lemma_weights.sum()]
    )
    real_bytes = sum(len(t.encode()) for t in real)
    if real_bytes > target_bytes // 2:
        real = real[:: 1 + 2 * real_bytes // target_bytes]
        real_bytes = sum(len(t.encode()) for t in real)
    drawn = draw(
        words + every, weights, SEPARATORS, SEPARATOR_WEIGHTS, target_bytes - real_bytes, rng
    )
    drawn_bytes = sum(len(t.encode()) for t in drawn)
    return Corpus("spaced", list(entries), mixed(real, drawn, rng), real_bytes, drawn_bytes)


def chinese_lexicon(data: Path) -> tuple[list[str], np.ndarray]:
    """Words of jieba's dictionary with their counts, and wordnet lemmas."""
    words: dict[str, float] = {}
    folder = package_folder("jieba")
    if folder:
        for line in (folder / "dict.txt").read_text("utf-8").splitlines():
            word, count, _ = line.split(" ")
            words[word] = float(count)
    for lemma in lemmas(data, ["cmn"]):
        words.setdefault(lemma, 3.0)
    return list(words), np.array(list(words.values())) + 1


def japanese_lexicon(data: Path) -> tuple[list[str], np.ndarray]:
    """Base forms of MeCab's ipadic (by Zipf's law) and wordnet lemmas."""
    words: dict[str, None] = dict.fromkeys(lemmas(data, ["wikt-jpn"]))
    folder = package_folder("ipadic")
    if folder:
        raw = (folder / "dicdir/sys.dic").read_bytes()
        sizes = struct.unpack_from("<10I", raw)
        start = 72 + sizes[6] + sizes[7]
        for feature in raw[start : start + sizes[8]].decode("utf-8", "replace").split("\0"):
            fields = feature.split(",")
            if len(fields) > 6 and fields[6] != "*":
                words[fields[6]] = None
    return list(words), zipf(len(words), np.random.default_rng(1))


def thai_lexicon(data: Path) -> tuple[list[str], np.ndarray]:
    """PyThaiNLP's word lists and Wikipedia titles, with the counts it has, and wordnet lemmas."""
    counts: dict[str, float] = dict.fromkeys(lemmas(data, ["wikt-tha"]), 100.0)
    folder = package_folder("pythainlp")
    if folder:
        for name in ("words_th", "orst_words_th", "volubilis_words_th", "wikipedia_titles_th",
                     "family_names_th", "person_names_female_th", "person_names_male_th"):  # fmt: skip
            for word in (folder / f"corpus/{name}.txt").read_text("utf-8").splitlines():
                counts.setdefault(word.strip().replace("_", " "), 20.0)
        for line in (folder / "corpus/tnc_freq.txt").read_text("utf-8").splitlines():
            word, _, count = line.partition("\t")
            if word in counts and count.strip().isdigit():
                counts[word] = 20.0 + float(count)
    counts.pop("", None)
    return list(counts), np.array(list(counts.values()))


LEXICA = {
    "zh": (chinese_lexicon, ("zh-CN", "zh-TW"), ("", "，", "。", " ", "、", "！")),
    "ja": (japanese_lexicon, ("ja",), ("", "、", "。", " ", "の", "！")),
    "th": (thai_lexicon, ("th",), ("", " ", "", ", ", "/", "!")),
}


def unspaced(language: str, data: Path, count: int, target_bytes: int, seed: int = 0) -> Corpus:
    """Words of a lexicon, then pairs of its words joined without a space, up to `count`."""
    rng = np.random.default_rng(seed)
    lexicon, tags, separators = LEXICA[language]
    words, weights = lexicon(data)
    entries: dict[str, None] = {str(i): None for i in range(100)}
    fill(entries, iter(words), count)
    cumulative = np.cumsum(weights / weights.sum())
    while len(entries) < count:
        picks = np.searchsorted(cumulative, rng.random((100_000, 2))).clip(0, len(words) - 1)
        fill(entries, (words[a] + words[b] for a, b in picks.tolist()), count)
    captions = stamp_captions(data)
    real = list(dict.fromkeys(c for tag in tags for c in captions.get(tag, [])))
    drawn = draw(words, weights, separators, (0.8, 0.06, 0.05, 0.05, 0.03, 0.01), target_bytes, rng)
    sizes = [sum(len(t.encode()) for t in texts) for texts in (real, drawn)]
    return Corpus(language, list(entries), mixed(real, drawn, rng), *sizes)
