"""Ranks, recalls and accuracies against plain loops, and what a blind model gets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.trainer.evaluation.plain import Plain
from trainer.evaluation.loading import Loaded
from trainer.evaluation.ranking import first_right, nearest
from trainer.evaluation.retrieval import retrieve
from trainer.evaluation.zero_shot import Classified, chance, class_features, classify

Features = npt.NDArray[np.float32]


def unit(rng: np.random.Generator, n: int, d: int = 6) -> Features:
    found = rng.normal(size=(n, d)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def plain_rank(scores: npt.NDArray[np.float32], right: set[int]) -> int:
    """Place of the first right item after a stable sort by falling score."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return next(place for place, item in enumerate(order) if item in right)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_ranks_are_those_of_a_stable_sort(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.evaluation.ranking._BLOCK", 100)  # several blocks
    # Halves and quarters are exact in float32, so equal scores are equal however they are summed.
    queries = rng.integers(-2, 3, (57, 4)).astype(np.float32)
    items = rng.integers(-2, 3, (23, 4)).astype(np.float32) / 4
    right = [set(rng.choice(23, rng.integers(1, 4), replace=False).tolist()) for _ in range(57)]
    pairs = [(q, i) for q, one in enumerate(right) for i in sorted(one)]
    query, item = (np.array(column) for column in zip(*pairs, strict=True))
    found = first_right(queries, items, (query, item))
    assert found.tolist() == [
        plain_rank(queries[q] @ items.T, right[q]) for q in range(len(queries))
    ]
    assert len(set(found.tolist())) > 5


def test_a_query_without_a_right_item_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="right item"):
        first_right(unit(rng, 3), unit(rng, 4), (np.array([0, 2]), np.array([1, 1])))


def test_a_model_that_tells_nothing_apart_gets_chance() -> None:
    same = np.ones((40, 4), np.float32) / 2
    classified = classify(same, same[:8], np.arange(40) % 8)
    assert classified.scores()["macro"]["mean"] == pytest.approx(1 / 8, abs=1e-6)
    assert classified.scores()["top5"]["mean"] == pytest.approx(5 / 8)
    found = retrieve(same, same, np.arange(40))
    assert found.recall("text_to_image", 1).mean == pytest.approx(1 / 40) == found.chance
    assert found.recall("image_to_text", 10).mean == pytest.approx(10 / 40)


def test_recall_is_that_of_a_plain_loop(rng: np.random.Generator) -> None:
    images, owner = unit(rng, 30), np.sort(np.concatenate([np.arange(30), rng.integers(0, 30, 45)]))
    texts = unit(rng, 75) * 0.4 + images[owner]
    texts = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)
    shuffled = rng.permutation(75)
    found = retrieve(images, texts[shuffled], owner[shuffled])
    scores = texts @ images.T
    for k in (1, 5, 10):
        to_image = [owner[t] in np.argsort(-scores[t])[:k] for t in range(75)]
        to_text = [any(owner[t] == i for t in np.argsort(-scores[:, i])[:k]) for i in range(30)]
        assert found.recall("text_to_image", k).mean == pytest.approx(np.mean(to_image))
        assert found.recall("image_to_text", k).mean == pytest.approx(np.mean(to_text))
        assert 0 < np.mean(to_image) < 1 or k > 1
    assert found.recall("text_to_image", 1).n < 30 == found.recall("image_to_text", 1).n


def test_images_that_share_their_words_are_all_right() -> None:
    eye = np.eye(3, dtype=np.float32)
    # Texts of the images 0, 1, 2: "a", "a", "b"; the words "a" point at image 0.
    texts = eye[[0, 0, 2]]
    apart = retrieve(eye, texts, np.array([0, 1, 2]))
    assert apart.text_to_image.tolist() == [0, 1, 0]
    shared = retrieve(eye, texts, np.array([0, 1, 2]), np.array([4, 4, 1]))
    assert shared.text_to_image.tolist() == [0, 0, 0]
    assert shared.chance == pytest.approx(2 / 3)  # image 0 answers two of the three texts
    assert apart.chance == pytest.approx(1 / 3)


def test_accuracies_are_those_of_a_plain_loop(rng: np.random.Generator) -> None:
    classes, labels = unit(rng, 9), rng.integers(0, 8, 100)  # class 8 has no image
    images = unit(rng, 100) + classes[labels]
    found = classify(images, classes, labels)
    guess = (images @ classes.T).argmax(1)
    top = np.argsort(-(images @ classes.T), 1)[:, :5]
    of_class = [np.mean(guess[labels == c] == c) for c in range(8)]
    scores = found.scores()
    assert found.per_class()[8] is None
    assert found.per_class()[:8] == pytest.approx(of_class)
    assert scores["macro"]["mean"] == pytest.approx(np.mean(of_class), abs=1e-6)
    assert scores["micro"]["mean"] == pytest.approx(np.mean(guess == labels), abs=1e-6)
    in_top = [np.mean([c in row for row in top[labels == c]]) for c in range(8)]
    assert scores["top5"]["mean"] == pytest.approx(np.mean(in_top), abs=1e-6)
    few = found.scores(np.array([2, 5]))
    assert few["macro"]["mean"] == pytest.approx((of_class[2] + of_class[5]) / 2, abs=1e-6)
    assert (few["classes"], few["candidates"], scores["classes"]) == (2, 9, 8)


def test_chance_is_the_best_blind_answer(rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])
    group = np.array([0, 1, 1, 2, 3, 4])  # classes 1 and 2 share a name
    blind = []
    for answer in range(5):
        rank = np.where(group[labels] == answer, 0, 1)
        blind.append(Classified(labels, rank, 6).scores()["macro"]["mean"])
    assert chance(labels, group) == pytest.approx(max(blind), abs=1e-6)
    assert chance(labels) == pytest.approx(1 / 6)


def test_a_class_is_the_unit_mean_of_its_prompts(loaded: Loaded, plain: Plain) -> None:
    prompts = [["a dog"], ["eine Katze", "犬の写真", "x"], ["a dog", "a dog"]]
    found = class_features(loaded, prompts)
    for row, texts in zip(found, prompts, strict=True):
        mean = np.mean([plain.text(text) for text in texts], axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)


def test_nearest_are_the_best_first(rng: np.random.Generator) -> None:
    queries, items = unit(rng, 4), unit(rng, 9)
    assert nearest(queries, items, 3).tolist() == [
        sorted(range(9), key=lambda i: -float(q @ items[i]))[:3] for q in queries
    ]
