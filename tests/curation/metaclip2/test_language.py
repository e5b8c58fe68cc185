"""Language identification with the real model, and the map from labels to metadata keys."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pyarrow as pa
import pytest

from curation.metaclip2.language import (
    LANGUAGE_MAP,
    LID_CODES,
    OTHER,
    Identifier,
    metadata_keys,
)
from schemas.errors import InputError

SENTENCES = {
    "en": "A black dog is running over the green grass.",
    "fr": "Un chien noir court dans l'herbe verte.",
    "de": "Ein schwarzer Hund läuft über das grüne Gras.",
    "th": "สุนัขสีดำวิ่งบนหญ้า",
    "ja": "黒い犬が草の上を走っています。",
    "zh": "这是一张在北京拍摄的照片。",
    "ar": "كلب أسود يركض على العشب الأخضر.",
    "ru": "Чёрная собака бежит по зелёной траве.",
}


@pytest.fixture(scope="module")
def identifier() -> Identifier:
    return Identifier()


def test_labels_of_plain_sentences(identifier: Identifier) -> None:
    texts = pa.array(list(SENTENCES.values()))
    assert identifier.identify(texts).to_pylist() == list(SENTENCES)


@pytest.mark.spec("metaclip2", 8)
def test_line_ends_and_tabs_do_not_break_it(identifier: Identifier) -> None:
    for break_ in ("\n", "\r", "\t", "\r\n", "\n\n"):
        broken = [text.replace(" ", break_) + break_ for text in SENTENCES.values()]
        assert identifier.identify(pa.array(broken)).to_pylist() == list(SENTENCES)


@pytest.mark.spec("metaclip2", 7)
def test_every_text_gets_one_label(identifier: Identifier) -> None:
    odd = ["12", "2021-04-05", "😀", "a\0b", "", " ", "</s>", "__label__fr", "x" * 100_000]
    labels = identifier.identify(pa.array(odd, pa.string())).to_pylist()
    assert len(labels) == len(odd)
    assert set(labels) <= set(LID_CODES)


def test_a_label_depends_on_its_text_alone(identifier: Identifier) -> None:
    texts = list(SENTENCES.values())
    whole = identifier.identify(pa.array(texts * 2)).to_pylist()
    alone = [identifier.identify(pa.array([text])).to_pylist()[0] for text in texts]
    assert whole == alone * 2
    chunked = pa.chunked_array([pa.array(texts[:3]), pa.array(texts).slice(3)])
    assert identifier.identify(chunked).to_pylist() == alone
    assert identifier.identify(pa.array([], pa.string())).to_pylist() == []


def test_a_pickled_copy_is_small_and_equal(identifier: Identifier) -> None:
    data = pickle.dumps(identifier)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert copy.fingerprint == identifier.fingerprint
    assert copy.identify(pa.array(["Un chien noir."])).to_pylist() == ["fr"]


def test_the_map_covers_the_labels_of_the_model(identifier: Identifier) -> None:
    labels = re.findall(rb"__label__([a-z]+)\0", identifier.path.read_bytes())
    assert sorted(label.decode() for label in labels) == sorted(LID_CODES)
    assert len(LID_CODES) == 176
    same = [code for code in LID_CODES if LANGUAGE_MAP[code] == code]
    assert len(same) == 173
    assert {code: LANGUAGE_MAP[code] for code in LID_CODES if code not in same} == {
        "yue": "zh",
        "cbk": OTHER,
        "lrc": OTHER,
    }


@pytest.mark.spec("metaclip2", 9)
def test_an_unknown_label_is_other_and_counted() -> None:
    labels = pa.array(["en", "xx", "yue", "", "N/A", "xx", "qq"])
    keys, unknown = metadata_keys(labels)
    assert keys.to_pylist() == ["en", "other", "zh", "other", "other", "other", "other"]
    assert unknown == {"qq": 1, "xx": 2}
    keys, unknown = metadata_keys(labels, {"en": "all", "xx": "y"})
    assert keys.to_pylist()[:2] == ["all", "y"]
    assert unknown == {"": 1, "N/A": 1, "qq": 1, "yue": 1}


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.ftz"
    for content in (None, b"not a model"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(path))):
            Identifier(path).identify(pa.array(["a"]))
