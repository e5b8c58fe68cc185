"""Wordnet lemmas as metadata entries (Meta CLIP 2, spec sections 3.1 and 3.2, item 2)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from curation.metadata.strings import entry_mask, strip

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
