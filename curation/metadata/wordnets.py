"""Wordnet lemmas as metadata entries (Meta CLIP 2, spec sections 3.1 and 3.2, item 2)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.metadata.strings import entry_mask, strip
from curation.metadata.wikis import WIKIPEDIAS
from schemas.errors import InputError, UsageError

OMW_TO_WIKI: Mapping[str, str] = MappingProxyType(
    {
        "fin": "fi",
        "heb": "he",
        "slv": "sl",
        "ita": "it",
        "nno": "nn",
        "nob": "no",
        # The released code maps OMW's `als` to Wikipedia's `als` (Alemannic); the file is
        # Albanet, Albanian.
        "als": "sq",
        "sqi": "sq",
        "pol": "pl",
        "hrv": "hr",
        "nld": "nl",
        "ron": "ro",
        "arb": "ar",
        "isl": "is",
        "swe": "sv",
        "por": "pt",
        "cmn": "zh",
        "jpn": "ja",
        "dan": "da",
        "slk": "sk",
        "lit": "lt",
        "bul": "bg",
        "eus": "eu",
        "cat": "ca",
        "glg": "gl",
        "spa": "es",
        "ell": "el",
        "zsm": "ms",
        "ind": "id",
        "fra": "fr",
        "tha": "th",
        "eng": "en",
    }
)
"""Open Multilingual Wordnet's code -> Wikipedia's, Albanian repaired (spec 9.2, defect 10)."""

REPAIRS = ("OMW als (Albanet) is Albanian: mapped to sq, not to Alemannic als",)


def lemma_entries(lemmas: pa.Array) -> pa.Array:
    """Entries of raw lemmas: "_" -> space, "+" removed, stripped, filtered, distinct, in ascending
    code point order.

    There is no limit on length and no cap (section 3.2, item 2).
    """
    text = pc.replace_substring(pc.cast(lemmas, pa.string()), "_", " ")
    return _distinct(strip(pc.replace_substring(text, "+", "")))


def synset_entries(heads: pa.Array) -> pa.Array:
    """English entries of Meta CLIP 1: the name of each synset, "_" -> space (section 3.1).

    `heads` holds the first lemma of every synset. NLTK names a synset `<first lemma in lower
    case>.<pos>.<nn>` and the rule keeps what is before the first ".", so "St. Louis" becomes "st"
    and ".22 caliber" nothing. With the 100 numbers WordNet 3.0 gives 86,654 strings, the published
    count.
    """
    text = pc.utf8_lower(pc.replace_substring(pc.cast(heads, pa.string()), "_", " "))
    return _distinct(strip(pc.replace_substring_regex(text, r"(?s)\..*$", "")))


def _distinct(texts: pa.Array) -> pa.Array:
    kept = pc.unique(texts.filter(entry_mask(texts, limit=None)))
    # Arrow compares strings by their UTF-8 bytes, which is the order of code points.
    return kept.take(pc.sort_indices(kept))


# Wiktionary's tables of the Extended Open Multilingual Wordnet, by ISO 639-3.
_ISO_TO_WIKI = dict(OMW_TO_WIKI) | {
    "afr": "af",
    "deu": "de",
    "hin": "hi",
    "kor": "ko",
    "rus": "ru",
    "swa": "sw",
    "tur": "tr",
    "ukr": "uk",
    "vie": "vi",
}


def wiki_of_file(name: str) -> str:
    """The Wikipedia code of a wordnet file's name.

    Known: `wn-data-fra.tab` and `wn-wikt-deu.tab` as in omwn/omw-data, `fra.parquet`,
    `wikt-deu.parquet`, and Wikipedia's own codes (`fr.parquet`). UsageError for others.
    """
    stem = name.rpartition("/")[2].rpartition(".")[0]
    code = stem.removeprefix("wn-").removeprefix("data-").removeprefix("wikt-")
    wiki = _ISO_TO_WIKI.get(code, code)
    if wiki not in WIKIPEDIAS:
        raise UsageError(
            f"wordnets: the file {name} names no known language ({code!r}); call it "
            "CODE.parquet or wn-data-CODE.tab with a code of the Open Multilingual Wordnet (fra, "
            "jpn, ...) or of Wikipedia (fr, ja, ...)."
        )
    return wiki


def read_lemmas(name: str, file: BinaryIO) -> tuple[pa.Array, pa.Array]:
    """Raw lemmas of one wordnet file, and the first lemma of each synset in the order of the file.

    `.parquet` has columns `lemma` and `synset` (or `head`); `.tab` is the Open Multilingual
    Wordnet's `synset TAB lang:lemma TAB lemma`. Without synsets there are no first lemmas. Raises
    InputError naming the file.
    """
    if name.endswith(".tab"):
        return _read_tab(name, file)
    try:
        table = pq.read_table(file, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"wordnets: {name} is not readable as Parquet ({error}).") from error
    if "lemma" not in table.column_names:
        found = ", ".join(table.column_names)
        raise InputError(f"wordnets: {name} has no column lemma (found {found}).")
    lemmas = table["lemma"].combine_chunks().cast(pa.string())
    if "head" in table.column_names:
        return lemmas, lemmas.filter(table["head"].combine_chunks())
    if "synset" in table.column_names:
        return lemmas, _first_of_each(lemmas, table["synset"].combine_chunks())
    return lemmas, lemmas.slice(0, 0)


def _read_tab(name: str, file: BinaryIO) -> tuple[pa.Array, pa.Array]:
    lemmas: list[str] = []
    synsets: list[str] = []
    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"wordnets: {name}, line {number}: not valid UTF-8.") from error
        fields = text.split("\t")
        if text.startswith("#") or len(fields) < 3 or not fields[1].endswith("lemma"):
            continue
        synsets.append(fields[0])
        lemmas.append(fields[2])
    if not lemmas:
        raise InputError(f"wordnets: {name} holds no lemma line (synset TAB lang:lemma TAB lemma).")
    texts = pa.array(lemmas, pa.string())
    return texts, _first_of_each(texts, pa.array(synsets, pa.string()))


def _first_of_each(lemmas: pa.Array, synsets: pa.Array) -> pa.Array:
    order = pl.DataFrame({"synset": pl.Series(synsets), "lemma": pl.Series(lemmas)})
    firsts = order.unique("synset", keep="first", maintain_order=True)["lemma"]
    return firsts.to_arrow().cast(pa.string())
