"""The claim `metaclip2`: what its arms share, what is refused, and its verdict worked out by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.errors import CheckFailed, JobError
from trainer.claims import metaclip2
from trainer.claims.metaclip2 import ARMS, SHOWN_LANGUAGES, Settings
from trainer.config import RunConfig
from trainer.protocols import Place

SCORES = {
    "uncurated": [0.45, 0.65, 0.60],
    "row1": [0.70, 0.71, 0.72],
    "row3": [0.30, 0.31, 0.32],
    "row4": [0.40, 0.45, 0.50],
    "row5": [0.50, 0.60, 0.70],
}


def results(scores: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """What the tasks of three seeds give; seeds come in another order than they are judged in."""
    found: dict[str, dict[str, Any]] = {}
    for seed in (2, 0, 1):
        found[f"data-{seed}"] = {"t": 30 + seed, "digest": "d"}
        for arm, values in scores.items():
            found[f"{arm}-{seed}"] = {
                "arm": arm,
                "seed": seed,
                "score": values[seed],
                "chance": 0.125,
                "classes": 8 + seed,
                "languages": dict.fromkeys(SHOWN_LANGUAGES, values[seed] / 2),
                "pairs": 1000 + 10 * seed,
                "repeats": 1.5,
            }
    return found


def test_arms_wait_for_the_data_of_their_seed() -> None:
    needs = {task.name: task.needs for task in metaclip2.tasks(Settings())}
    assert len(needs) == 1 + 5 + 5 * 5  # English metadata, pools, arms
    for seed in range(5):
        assert needs[f"data-{seed}"] == ("english",)
        assert all(needs[f"{arm}-{seed}"] == (f"data-{seed}",) for arm in ARMS)


def test_the_verdict_is_of_differences_within_a_seed() -> None:
    found = metaclip2.judge(results(SCORES), Settings(seeds=3))
    assert found["arms"]["row5"]["scores"] == SCORES["row5"]
    first, second = found["differences"]
    # 0.05, -0.05, 0.10: mean 0.0333, s = 0.07638; t(0.975, 2) = 4.3027: half 0.1897.
    assert (first["better"], first["worse"], first["holds"]) == ("row5", "uncurated", False)
    assert [first[key] for key in ("mean", "low", "high")] == [0.0333, -0.1564, 0.2231]
    # 0.10, 0.15, 0.20: mean 0.15, s = 0.05: half 0.1242.
    assert (second["better"], second["worse"], second["holds"]) == ("row5", "row4", True)
    assert [second[key] for key in ("mean", "low", "high")] == [0.15, 0.0258, 0.2742]
    assert not found["holds"]  # both must
    assert (found["t"], found["classes"], found["chance"]) == ([30, 31, 32], [8, 9, 10], 0.125)
    assert found["arms"]["row1"] == {
        "scores": [0.70, 0.71, 0.72],
        "mean": 0.71,
        "pairs": 1010,
        "repeats": 1.5,
        "languages": dict.fromkeys(SHOWN_LANGUAGES, 0.355),
    }
    assert metaclip2.recorded(found, "row4-2") == 0.5
    # The same numbers paired the other way round would differ by more.
    swapped = SCORES | {"row4": SCORES["row4"][::-1]}
    worse = metaclip2.judge(results(swapped), Settings(seeds=3))["differences"][1]
    assert worse["mean"] == 0.15 and not worse["holds"]


def test_a_claim_holds_if_both_differences_are_above_zero() -> None:
    lower = SCORES | {"uncurated": [0.40, 0.52, 0.60]}
    assert metaclip2.judge(results(lower), Settings(seeds=3))["holds"]


def test_the_table_shows_every_seed_and_says_no() -> None:
    lines = metaclip2.table(metaclip2.judge(results(SCORES), Settings(seeds=3)))
    languages = " | ".join(SHOWN_LANGUAGES)
    assert lines[0] == (
        "| arm | mean | seed 0 | seed 1 | seed 2 | unique pairs | times seen | " + languages + " |"
    )
    assert {line.count("|") for line in lines[: 2 + len(ARMS)]} == {lines[0].count("|")}
    assert "| row1: English only | 0.710 | 0.700 | 0.710 | 0.720 | 1,010 | 1.50 | 0.355" in lines[3]
    assert lines[-2:] == [
        "* row5 above uncurated: +0.033, 95 % interval of the paired difference -0.156 to +0.223: "
        "**does not hold**",
        "* row5 above row4: +0.150, 95 % interval of the paired difference +0.026 to +0.274: **holds**",
    ]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The settings of arms that would train; none does. Every dataset has 1,000 pairs."""
    found: list[RunConfig] = []

    def train(config: RunConfig, place: Place) -> int:
        found.append(config)
        return 7

    monkeypatch.setattr("trainer.engine.run.train", train)
    monkeypatch.setattr(metaclip2, "open_dataset", lambda path: range(1000))
    return found


def test_arms_differ_in_their_pairs_only(tmp_path: Path, trained: list[RunConfig]) -> None:
    settings = Settings(seeds=2, samples=2000, batch=50)
    for arm in ARMS:
        with pytest.raises(JobError, match=f"{arm} seed 1: training ended with exit code 7"):
            metaclip2.work(f"{arm}-1", tmp_path, settings)
    row5 = tmp_path / "seed-1" / "row5"
    data = {arm: config.data["path"] for arm, config in zip(ARMS, trained, strict=True)}
    curated = {arm: str(tmp_path / "seed-1" / arm / "curated") for arm in ARMS}
    assert data == curated | {"uncurated": str(row5 / "pool")}
    same = [config.model_dump() for config in trained]
    for config in same:
        del config["data"]["path"], config["output"]
        assert config == same[0]
    assert same[0]["tokenizer"]["dataset"] == str(row5 / "pool")
    assert same[0]["length"] == {"steps": None, "samples": 2000, "epochs": None, "tokens": None}
    assert (same[0]["seed"], same[0]["batch"]["size"]) == (1, 50)
    assert len({config.output for config in trained}) == len(ARMS)


def test_pairs_seen_more_than_twice_are_refused(tmp_path: Path, trained: list[RunConfig]) -> None:
    with pytest.raises(CheckFailed, match=r"2,001 samples of 1,000 pairs show each 2\.00 times"):
        metaclip2.work("row3-0", tmp_path, Settings(samples=2001))
    assert trained == []


def test_all_ways_curate_one_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(metaclip2, "_dataflows", lambda *words: ran.append(words))
    stats = {"languages": {"en": {"t": 40}}}
    manifest = SimpleNamespace(stats=stats, digest="d")
    monkeypatch.setattr(metaclip2, "open_dataset", lambda path: SimpleNamespace(manifest=manifest))
    settings = Settings(records=5000, concepts=20, p=0.1)
    assert metaclip2.work("data-3", tmp_path, settings) == {"t": 40, "digest": "d"}
    row5, *others = ran
    assert {"input=generated", "pool.records=5000", "pool.concepts=20", "p=0.1"} < set(row5)
    place = tmp_path / "seed-3"
    assert all(f"input={place / 'row5' / 'records'}" in words for words in others)
    assert all("seed=3" in words for words in ran)
    by_arm = {words[-1].rpartition("/")[2]: set(words) for words in ran}
    assert {"p=0.1", "threshold=shared"} < by_arm["row4"]
    assert {"t_en=40", "isolation=false"} < by_arm["row3"]
    assert f"metadata={tmp_path / 'english' / 'metadata'}" in by_arm["row1"]
    stats["languages"]["en"]["t"] = 1
    with pytest.raises(CheckFailed, match="t = 1 in English"):
        metaclip2.work("data-3", tmp_path, settings)
