"""Evaluation `retrieval` of a committed dataset against a plain loop over its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.dataset import open_dataset
from schemas.errors import InputError, UsageError
from tests.schemas import samples
from tests.trainer.evaluation.plain import Plain
from tests.trainer.evaluation.runs import curated
from trainer.evaluation import pairs, registry
from trainer.evaluation.loading import Loaded


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated(tmp_path_factory.mktemp("pairs") / "curated", broken=7)


def rows_of(dataset: Path) -> list[dict[str, Any]]:
    return [row for table in open_dataset(dataset).tables() for row in table.to_pylist()]


def test_recall_is_that_of_a_plain_loop(dataset: Path, loaded: Loaded, plain: Plain) -> None:
    result = registry.evaluate(loaded, "retrieval", {"path": str(dataset), "least": 5})
    rows = [row for row in rows_of(dataset) if b"spoiled" not in row["image"]["bytes"]]
    pictures = {row["image_id"]: plain.image(row["image"]["bytes"]) for row in rows}
    words = {row["text"]: plain.text(row["text"]) for row in rows}
    assert len(words) < len(rows) > len(pictures), "the test needs repeated words and images"
    for language in ["all", "en", "ja", "de"]:
        mine = [row for row in rows if language in ("all", row["language"])]
        images = list(dict.fromkeys(row["image_id"] for row in mine))
        texts = list(dict.fromkeys(row["text"] for row in mine))
        has = {(row["image_id"], row["text"]) for row in mine}
        scores = np.array([pictures[i] for i in images]) @ np.array([words[t] for t in texts]).T
        found = result["languages"][language]
        assert (found["images"], found["texts"]) == (len(images), len(mine))
        for k in (1, 5, 10):
            to_image = []
            for row in mine:
                near = np.argsort(-scores[:, texts.index(row["text"])])[:k]
                to_image.append(any((images[i], row["text"]) in has for i in near))
            to_text = []
            for i, image in enumerate(images):
                near = np.argsort(-scores[i])[:k]
                to_text.append(any((image, texts[t]) in has for t in near))
            recall = found["text_to_image"][f"R@{k}"]["mean"]
            assert recall == pytest.approx(np.mean(to_image), abs=1e-6)
            recall = found["image_to_text"][f"R@{k}"]["mean"]
            assert recall == pytest.approx(np.mean(to_text), abs=1e-6)
    assert result["unreadable"] == 1 and result["few"] == {}
    assert result["dataset"] == open_dataset(dataset).manifest.digest
    for example in result["examples"]:
        right = [r["image_id"].hex() for r in rows if r["text"] == example["text"]]
        for image in example["images"]:
            assert not image["right"] or image["image_id"] in right


def test_a_smaller_limit_takes_some_of_the_same_images(dataset: Path) -> None:
    opened = open_dataset(dataset)

    def chosen(**settings: Any) -> set[int]:
        given = pairs.Settings(path=str(dataset), **settings)
        found = pairs.choose(opened, given)
        return {1000 * shard + row for shard, rows in found.items() for row in rows.tolist()}

    few, more = chosen(limit=10), chosen(limit=25)
    assert few < more < chosen() and chosen(limit=10, seed=1) != few
    rows = rows_of(dataset)
    images = {rows[row]["image_id"] for row in few}
    assert len(images) == 10
    assert few == {i for i, row in enumerate(rows) if row["image_id"] in images}


def test_generated_images_are_rendered_from_their_urls(dataset: Path, loaded: Loaded) -> None:
    settings = {"path": str(dataset), "limit": 20, "least": 2}
    column = registry.evaluate(loaded, "retrieval", settings)
    rendered = registry.evaluate(
        loaded, "retrieval", {**settings, "images": "generated", "size": 40}
    )
    assert rendered["unreadable"] == 0
    if not column["unreadable"]:
        assert rendered["languages"] == column["languages"]


def test_few_images_and_missing_columns_are_named(
    tmp_path: Path, dataset: Path, loaded: Loaded
) -> None:
    result = registry.evaluate(loaded, "retrieval", {"path": str(dataset), "least": 30})
    assert set(result["languages"]) == {"all"} and set(result["few"]) == {"en", "ja", "de"}
    samples.committed(pairs.open_dataset(dataset).storage.sibling("pool"))
    with pytest.raises(UsageError, match=r"no column 'language' \(it is pool"):
        registry.evaluate(loaded, "retrieval", {"path": str(dataset.parent / "pool")})
    with pytest.raises(InputError, match="not a committed dataset"):
        registry.evaluate(loaded, "retrieval", {"path": str(tmp_path)})
