"""XM3600, Babel-ImageNet and CVQA in their public layouts, against their protocols as plain loops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import InputError, UsageError
from tests.trainer.evaluation.plain import Plain
from trainer.evaluation import registry
from trainer.evaluation.loading import Loaded

Picture = Callable[[int], bytes]
LOCALES = {"de": "Hund Nummer {} {}", "ja": "犬 {} {}", "th": "สุนัข {} {}", "en": "dog {} {}"}
IMAGES = 7


# -- XM3600 --------------------------------------------------------------------------------


@pytest.fixture
def xm3600(tmp_path: Path, picture: Picture) -> Path:
    (tmp_path / "images").mkdir()
    lines = []
    for k in range(IMAGES):
        key = f"{k * 7919 % 9973:016x}"
        (tmp_path / "images" / f"{key}.jpg").write_bytes(picture(k))
        row: dict[str, Any] = {"image/key": key, "image/locale": "de"}
        for locale, pattern in LOCALES.items():
            texts = [pattern.format(k, n) for n in range(1 + (k + len(pattern)) % 3)]
            row[locale] = {
                "caption": texts,
                "caption/tokenized": texts,
                "caption/tokenized/lowercase": [text.lower() for text in texts],
            }
        lines.append(json.dumps(row, ensure_ascii=False))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_xm3600_is_recall_at_1_of_all_captions_of_a_locale(
    xm3600: Path, loaded: Loaded, plain: Plain
) -> None:
    result = registry.evaluate(loaded, "xm3600", {"path": str(xm3600)})
    rows = [json.loads(line) for line in (xm3600 / "captions.jsonl").read_text().splitlines()]
    images = [plain.image((xm3600 / "images" / f"{r['image/key']}.jpg").read_bytes()) for r in rows]
    to_image, to_text, pooled = [], [], []
    for locale in LOCALES:
        texts = [(text, i) for i, row in enumerate(rows) for text in row[locale]["caption"]]
        scores = np.array(images) @ np.array([plain.text(text) for text, _ in texts]).T
        owner = np.array([i for _, i in texts])
        to_image.append(np.mean(scores.argmax(0) == owner))
        to_text.append(np.mean(owner[scores.argmax(1)] == np.arange(IMAGES)))
        pooled.append((scores.argmax(0) == owner).tolist())
        found = result["languages"][locale]
        assert found["text_to_image"]["R@1"]["mean"] == pytest.approx(to_image[-1], abs=1e-6)
        assert found["image_to_text"]["R@1"]["mean"] == pytest.approx(to_text[-1], abs=1e-6)
        assert (found["images"], found["texts"]) == (IMAGES, len(texts))
    overall = result["overall"]
    assert overall["text_to_image"]["R@1"]["mean"] == pytest.approx(np.mean(to_image), abs=1e-6)
    assert overall["image_to_text"]["R@1"]["mean"] == pytest.approx(np.mean(to_text), abs=1e-6)
    assert 0 < np.mean(to_image) < 1
    assert abs(np.mean(np.concatenate(pooled)) - np.mean(to_image)) > 1e-4, (
        "locales must weigh equally"
    )
    # All captions of an image are one observation: never more than there are images.
    assert overall["text_to_image"]["R@1"]["n"] <= IMAGES + 1e-9
    one = registry.evaluate(loaded, "xm3600", {"path": str(xm3600), "locales": ["ja"]})
    assert one["languages"] == {"ja": result["languages"]["ja"]}


def test_xm3600_names_what_is_not_as_expected(xm3600: Path, loaded: Loaded) -> None:
    def refused(message: str, **settings: Any) -> None:
        with pytest.raises((InputError, UsageError), match=message):
            registry.evaluate(loaded, "xm3600", {"path": str(xm3600), **settings})

    refused("locales=jap: not in the file. Did you mean 'ja'", locales=["jap"])
    image = next((xm3600 / "images").iterdir())
    data = image.read_bytes()
    image.write_bytes(data[:300])
    refused(f"{image.name}: an image")
    image.unlink()
    refused(f"1 of {IMAGES} images are missing, such as .*{image.name}")
    image.write_bytes(data)
    captions = xm3600 / "captions.jsonl"
    lines = captions.read_text().splitlines()
    row = json.loads(lines[2])
    without = {key: value for key, value in row.items() if key != "ja"}
    for broken, message in [
        ("not JSON", "line 3: expected an object with image/key"),
        (json.dumps({"key": "1"}), "line 3: expected an object with image/key"),
        (json.dumps(without), "line 3: image .* has no captions in ja"),
        (json.dumps({**row, "image/key": "../secret"}), "is no key"),
        (lines[1], "7 lines for 6 images"),
    ]:
        captions.write_text("\n".join([*lines[:2], broken, *lines[3:]]))
        refused(message)
    captions.unlink()
    refused("expected the captions of Crossmodal-3600")


# -- Babel-ImageNet ------------------------------------------------------------------------

SYNSETS = ("n01440764", "n01443537", "n01484850", "n02099601")
BABEL = {
    "DE": [[0, 2, 3], ["Schleie", "Hai", "Hund"]],
    "JA": [[3, 1, 0], ["犬", "金魚", "テンチ"]],
    "EN": [[0, 1, 2, 3], ["tench", "goldfish", "shark", "dog"]],
}


@pytest.fixture
def babel(tmp_path: Path, picture: Picture) -> Path:
    for number, synset in enumerate(SYNSETS):
        (tmp_path / "val" / synset).mkdir(parents=True)
        for k in range(3):
            file = f"ILSVRC2012_val_{number * 10 + k:08d}.JPEG"
            (tmp_path / "val" / synset / file).write_bytes(picture(number * 10 + k))
    (tmp_path / "val" / "notes").mkdir()  # no synset: not a class
    text = json.dumps(BABEL, ensure_ascii=False)
    (tmp_path / "babel_imagenet.json").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("templates", [None, ["{}", "Foto: {}", "{}!"]])
def test_babel_imagenet_is_the_mean_over_languages_of_their_classes(
    babel: Path, loaded: Loaded, plain: Plain, templates: list[str] | None
) -> None:
    settings: dict[str, Any] = {"path": str(babel)}
    if templates:
        (babel / "prompts.json").write_text(json.dumps({"DE": templates}), encoding="utf-8")
        settings["prompts"] = str(babel / "prompts.json")
    result = registry.evaluate(loaded, "babel_imagenet", settings)
    accuracies = []
    for language, (numbers, names) in BABEL.items():
        own = templates if templates and language == "DE" else ["{}"]
        rows = []
        for name in names:
            mean = np.mean([plain.text(t.replace("{}", str(name))) for t in own], axis=0)
            rows.append(mean / np.linalg.norm(mean))
        right = []
        for place, number in enumerate(numbers):
            for file in sorted((babel / "val" / SYNSETS[int(number)]).iterdir()):
                right.append(np.argmax(np.array(rows) @ plain.image(file.read_bytes())) == place)
        accuracies.append(np.mean(right))
        found = result["languages"][language]
        assert found["micro"]["mean"] == pytest.approx(accuracies[-1], abs=1e-6)
        assert (found["images"], found["chance"]) == (3 * len(names), 1 / len(names))
    assert result["headline"]["mean"] == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert result["headline"]["n"] <= 12
    assert len(set(accuracies)) > 1


def test_babel_imagenet_names_what_is_not_as_expected(babel: Path, loaded: Loaded) -> None:
    def refused(message: str, **settings: Any) -> None:
        with pytest.raises((InputError, UsageError), match=message):
            registry.evaluate(loaded, "babel_imagenet", {"path": str(babel), **settings})

    refused("languages=FR: not in the file", languages=["FR"])
    refused("expected babel_imagenet.json or babel_imagenet-298.json", path=str(babel / "val"))
    refused("expected folders named by synset", images=str(babel / "none"))
    refused("no folder named by synset", images=str(babel / "val" / SYNSETS[0]))
    file = babel / "babel_imagenet.json"
    for broken, message in [
        ({"DE": [[0, 1], ["one"]]}, "DE: expected .*equally many"),
        ({"DE": [[0, 0], ["a", "b"]]}, "each class once"),
        ({"DE": {"0": "a"}}, "DE: expected"),
        ({"DE": [[999], ["a"]]}, "has 4 synset folders, but .* names class 999"),
        ([], "expected a JSON object by language"),
    ]:
        file.write_text(json.dumps(broken))
        refused(message)


# -- CVQA ----------------------------------------------------------------------------------


EN = ("a red dog", "two cats", "many green birds on a wire", "rice")


def cvqa_table(picture: Picture, rows: int = 10) -> pa.Table:
    subsets = ["('Japanese', 'Japan')", "('Indonesian', 'Indonesia')"]
    image = [{"bytes": picture(k // 2), "path": f"{k // 2}.jpg"} for k in range(rows)]
    return pa.table(
        {
            "image": pa.array(image, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "ID": [f"59{k // 2}_{k % 2}" for k in range(rows)],
            "Subset": [subsets[k % 3 == 0] for k in range(rows)],
            "Question": [f"これは何ですか {k}" for k in range(rows)],
            "Translated Question": [f"What is this {k}?" for k in range(rows)],
            "Options": [[f"選択肢 {k} {o}" for o in range(4)] for k in range(rows)],
            "Translated Options": [[EN[(k + o) % 4] for o in range(4)] for k in range(rows)],
            "Label": [k % 4 for k in range(rows)],
            "Category": ["Objects"] * rows,
            "Image Type": ["Self"] * rows,
        }
    )


def test_cvqa_picks_the_option_nearest_to_the_picture(
    tmp_path: Path, picture: Picture, loaded: Loaded, plain: Plain
) -> None:
    table = cvqa_table(picture)
    predicted: dict[str, list[int]] = {}
    for task, prefix in [("LOCAL", ""), ("EN", "Translated ")]:
        predicted[task] = []
        for row in table.to_pylist():
            image = plain.image(row["image"]["bytes"])
            four = [f"{row[prefix + 'Question']} {option}" for option in row[f"{prefix}Options"]]
            predicted[task].append(int(np.argmax([plain.text(t) @ image for t in four])))
    # Labels that one task often meets and the other seldom, so that they cannot be mixed up.
    labels = [(a + (k % 4 == 0)) % 4 for k, a in enumerate(predicted["LOCAL"])]
    table = table.set_column(table.schema.get_field_index("Label"), "Label", pa.array(labels))
    (tmp_path / "data").mkdir()
    pq.write_table(table.slice(0, 6), tmp_path / "data" / "test-00000-of-00002.parquet")
    pq.write_table(table.slice(6), tmp_path / "data" / "test-00001-of-00002.parquet")
    result = registry.evaluate(loaded, "cvqa", {"path": str(tmp_path)})
    for task, answers in predicted.items():
        right = [a == label for a, label in zip(answers, labels, strict=True)]
        assert result["overall"][task]["mean"] == pytest.approx(np.mean(right), abs=1e-6)
        subsets = table["Subset"].to_pylist()
        for subset in set(subsets):
            mine = [r for r, s in zip(right, subsets, strict=True) if s == subset]
            found = result["languages"][subset]
            assert found["questions"] == len(mine)
            assert found[task]["mean"] == pytest.approx(np.mean(mine), abs=1e-6)
    assert result["overall"]["LOCAL"]["mean"] == pytest.approx(0.7)
    assert result["overall"]["EN"] != result["overall"]["LOCAL"]
    assert result["headline"]["chance"] == 0.25
    # Two questions about each picture: five observations.
    assert result["headline"]["n"] == pytest.approx(5)


def test_cvqa_names_what_is_not_as_expected(
    tmp_path: Path, picture: Picture, loaded: Loaded
) -> None:
    file = tmp_path / "test-00000-of-00001.parquet"

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            registry.evaluate(loaded, "cvqa", {"path": str(tmp_path)})

    refused("no Parquet file there")
    table = cvqa_table(picture, 2)
    pq.write_table(table.drop_columns(["Translated Options"]), file)
    refused("no column 'Translated Options'")
    as_text = table.set_column(5, "Options", pa.array(["['a', 'b']", "['c']"]))
    pq.write_table(as_text, file)
    refused("Options is string; expected a list of strings")
    pq.write_table(table.set_column(7, "Label", pa.array([0, 4])), file)
    refused("row 1: Label is 4; expected 0 to 3")
    short = table.set_column(5, "Options", pa.array([["a"] * 4, ["b"] * 3]))
    pq.write_table(short, file)
    refused("row 1: expected a question and four options of LOCAL")
    no_bytes = pa.array([{"bytes": None, "path": "x"}] * 2, table.schema.field("image").type)
    pq.write_table(table.set_column(0, "image", no_bytes), file)
    refused("row 0: the image has no bytes")
    file.write_bytes(b"PAR1")
    refused("not a Parquet file")
