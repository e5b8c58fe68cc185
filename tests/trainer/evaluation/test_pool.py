"""Evaluation `pool`: held-out pictures, prompts, tail classes and its refusals."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation.metaclip2.reference import occurs
from curation.metaclip2.text import normalise
from curation.pool import scene, stamps
from curation.pool.config import PoolConfig
from curation.pool.generate import LANGUAGES, generate
from curation.pool.labels import concepts
from curation.pool.render import render
from schemas.errors import CheckFailed, InputError, UsageError
from schemas.storage import storage
from schemas.table_schemas import BALANCE, POOL
from tests.schemas import samples
from tests.trainer.evaluation.plain import Plain
from trainer.evaluation import pool, pool_counts, registry
from trainer.evaluation.loading import Loaded

CLASSES = len(concepts())


@functools.cache
def stamp_rows() -> dict[str, dict[str, Any]]:
    """The stamps' own file, read without the project's code: {id: row}."""
    lines = (stamps.folder() / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_held_out_images_are_of_the_test_part_and_equally_many_a_class() -> None:
    held = pool.held_out(3, 2, concepts())
    rows = stamp_rows()
    names = sorted({row["concept"] for row in rows.values()})
    sources = [scene.parse(url) for url in held.urls]
    assert [rows[source.stamp]["concept"] for source in sources] == [
        names[label] for label in held.labels
    ]
    assert set(Counter(held.labels.tolist()).values()) == {2} and len(names) == CLASSES
    assert {source.split for source in sources} == {"test"}
    assert {source.background for source in sources} <= set(scene.TEST_BACKGROUNDS)
    last = max(source.number for source in sources)
    trained = generate(3, 0, last + 1, PoolConfig(split="train"))["url"].to_pylist()
    assert not set(trained) & set(held.urls) and len(set(held.urls)) == len(held.urls)


def test_a_pool_of_fewer_concepts_has_their_classes_only(loaded: Loaded) -> None:
    settings = {"images": 3, "languages": ["en"], "concepts": 12, "size": 32, "seed": 4}
    result = registry.evaluate(loaded, "pool", settings)
    config = PoolConfig(concepts=12)
    shown = generate(4, 0, 4000, config)["url"].to_pylist()
    names = {stamp_rows()[scene.parse(url).stamp]["concept"] for url in shown}
    assert set(result["classes"]) == names and len(result["classes"]) == 12
    found = result["languages"]["en"]
    assert (found["images"], found["candidates"]) == (36, 12)
    assert found["chance"] == pytest.approx(1 / 12)


def test_prompts_are_the_name_and_wordings_of_the_training_part() -> None:
    concept = next(c for c in concepts() if c.name == "banana")
    english = pool.prompts(concept, "en")
    assert english[0] == "banana" and "Our summer holiday: banana" in english
    for language in LANGUAGES:
        for one in pool.prompts(concept, language):
            assert concept.names[language] in one and "{" not in one
    assert not pool.prompts(next(c for c in concepts() if "ar" not in c.names), "ar")


def test_scores_are_those_of_a_plain_loop(loaded: Loaded, plain: Plain) -> None:
    """In Chinese, where some classes share their name and count as one answer."""
    result = registry.evaluate(loaded, "pool", {"images": 1, "languages": ["zh"], "size": 32})
    held = pool.held_out(0, 1, concepts())
    names: dict[str, str] = {}
    rows = stamp_rows()
    for row in rows.values():
        names.setdefault(row["concept"], row["names"]["zh"])
    texts = sorted(set(names.values()))
    assert len(texts) < CLASSES
    features = []
    for name in texts:
        mean = np.mean(
            [plain.text(t.format(name)) for t in ("{}", "我们的暑假：{}", "给孩子们的{}涂色画")], 0
        )
        features.append(mean / np.linalg.norm(mean))
    right = []
    for url in held.urls:
        scores = np.array(features) @ plain.image(render(url, 32))
        right.append(texts[scores.argmax()] == names[rows[scene.parse(url).stamp]["concept"]])
    found = result["languages"]["zh"]
    assert found["per_class"] == [float(r) for r in right]
    assert found["macro"]["mean"] == pytest.approx(np.mean(right), abs=1e-6)
    assert (found["candidates"], found["classes"]) == (len(texts), CLASSES)
    assert found["chance"] == max(Counter(names.values()).values()) / CLASSES
    assert result["headline"]["mean"] == found["macro"]["mean"]
    for example in result["examples"]:
        mine = next(c.name for c in concepts() if c.names["zh"] == example["text"])
        for image in example["images"]:
            shown = rows[scene.parse(image["url"]).stamp]["concept"]
            assert image["class"] == shown
            assert image["right"] == (names[shown] == names[mine])


def data_run(root: Path, t: int, urls: list[str], key: str = "en") -> Path:
    """The two datasets of a curation run that are looked at."""
    entries = ["banana", "tiger", "Sumatran tiger", "cake", "birthday", "sheep", "baby"]
    count = [40, 90, 3, 5, 300, 7, 200]
    balance = pa.table(
        {
            "metadata": [key] * len(entries),
            "entry": np.arange(len(entries), dtype=np.uint32),
            "text": entries,
            "count": np.array(count, np.uint64),
            "probability": np.ones(len(entries)),
        }
    )
    stats = {"languages": {key: {"t": t}}}
    samples.committed(storage(root / "balance"), BALANCE, BALANCE.validate(balance), stats=stats)
    rows = samples.pool(len(urls))
    rows = rows.set_column(rows.schema.get_field_index("url"), rows.schema.field("url"), [urls])
    samples.committed(storage(root / "pool"), POOL, POOL.validate(rows))
    return root


def test_tail_classes_are_those_with_an_english_count_below_t(
    tmp_path: Path, loaded: Loaded
) -> None:
    run = data_run(tmp_path, 7, ["generated://pool/0/1/animals/birds/penguin"] * 4)
    settings = {"images": 1, "size": 32, "languages": ["en", "de"], "run": str(run)}
    result = registry.evaluate(loaded, "pool", {**settings, "classes": "tail"})
    counts = dict(zip(result["classes"], result["english_count"], strict=True))
    # By hand: the rarest entry of the name, and the whole name where that is an entry.
    assert counts["banana"] == 40 and counts["Sumatran tiger"] == 3
    assert counts["birthday cake"] == 5 and counts["baby sheep"] == 7
    assert counts["beaver"] is None
    tail = [n for n, t in zip(result["classes"], result["tail"], strict=True) if t]
    assert tail == [name for name, n in counts.items() if n is not None and n < 7]
    assert {"Sumatran tiger", "birthday cake"} <= set(
        tail
    ) and "baby sheep" not in tail  # 7 is not below 7
    for language in ("en", "de"):
        found = result["languages"][language]
        per_class = dict(zip(result["classes"], found["per_class"], strict=True))
        assert found["macro"]["mean"] == pytest.approx(
            np.mean([per_class[name] for name in tail]), abs=1e-6
        )
        assert found["images"] == len(tail)
        assert found["candidates"] == CLASSES  # all classes compete
    assert result["headline"]["chance"] == pytest.approx(1 / len(tail))
    every = registry.evaluate(loaded, "pool", settings)
    for language in ("en", "de"):  # the same per-class arrays, so that arms and subsets pair
        theirs = every["languages"][language]["per_class"]
        assert theirs == result["languages"][language]["per_class"]
    assert every["languages"]["en"]["images"] == CLASSES


def test_names_match_entries_as_texts_do() -> None:
    names = [c.names["en"] for c in concepts()]
    entries = {part for name in names[::8] for part in pool_counts.parts(name)}
    entries |= {"ban", "Red", "s", "’", "deep", "space", "-2", "a"}
    assert len(entries) > 100
    for name in names:
        found = {e for e in entries if e.strip() == e and occurs(normalise(e), normalise(name))}
        assert {e for e in entries if e.strip() == e and e in pool_counts.parts(name)} == found


def test_what_cannot_be_scored_is_refused(tmp_path: Path, loaded: Loaded) -> None:
    def refused(error: type[Exception], message: str, **settings: Any) -> None:
        with pytest.raises(error, match=message):
            registry.evaluate(loaded, "pool", {"images": 1, "languages": ["en"], **settings})

    refused(UsageError, "languages=jp: the pool has no such language", languages=["jp"])
    refused(UsageError, "give at least one", languages=[])
    refused(UsageError, "classes=tail: give run=DATA_RUN", classes="tail")
    refused(InputError, "run=.*nothing.*not a committed dataset", run=str(tmp_path / "nothing"))
    held = pool.held_out(0, 1, concepts()).urls
    seen = data_run(tmp_path / "seen", 6, ["x", held[7], held[7], held[200]])
    refused(CheckFailed, "its pool holds 2 of the 305 images", run=str(seen))
    mixed = data_run(tmp_path / "mixed", 6, ["x"], key="all")
    refused(InputError, "isolation=true", run=str(mixed))
    no_tail = data_run(tmp_path / "none", 1, ["x"])
    refused(
        UsageError, "0 classes have an English count below t = 1", run=str(no_tail), classes="tail"
    )


def a_result(low: float, **more: Any) -> dict[str, Any]:
    head = {"metric": "macro", "mean": 0.1, "low": low, "high": 0.2, "n": 9.0, "chance": 0.05}
    return {"evaluation": "pool", "headline": head, **more}


def test_above_chance_wants_the_whole_interval_above_it() -> None:
    registry.above_chance(a_result(0.051, t=2))
    registry.above_chance(a_result(0.051))  # without a data run there is no t
    for low in (0.05, 0.01):
        with pytest.raises(CheckFailed, match=r"not above chance, 0\.0500"):
            registry.above_chance(a_result(low))
    with pytest.raises(CheckFailed, match="t = 1 in English"):
        registry.above_chance(a_result(0.051, t=1))
