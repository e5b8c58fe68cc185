"""Claim `metaclip2`: what balancing by language does for concepts that are rare (paper, table 2).

Every arm is trained by the same recipe on equally many pairs of one generated pool, and asked about
renderings that no arm saw. What differs is which pairs it is given:

uncurated  any text of the pool
row1       English metadata and English texts
row3       one list and one set for all languages, t of English
row4       each language on its own list, with the threshold of English
row5       each language on its own list, with its own threshold t from the English tail proportion p
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.dataset import open_dataset
from schemas.errors import CheckFailed, JobError
from trainer.claims.harness import Task
from trainer.claims.paired import paired

TITLE = "MetaCLIP 2: thresholds per language against one threshold, and against no curation"
METRIC = (
    "macro zero-shot accuracy on renderings that no arm saw, over classes whose raw English count is "
    "below t, prompts in English"
)
ARMS = {
    "uncurated": "any text",
    "row1": "English only",
    "row3": "no language isolation",
    "row4": "t_lang = t_en",
    "row5": "t_lang from p",
}
CLAIMED = (("row5", "uncurated"), ("row5", "row4"))
SHOWN_LANGUAGES = ("en", "es", "de", "fr", "ja", "ru")
SOURCES = (
    "curation/metaclip2/*.py",
    "curation/pool/*.py",
    "trainer/claims/metaclip2.py",
    "trainer/engine/step.py",
    "trainer/engine/schedule.py",
    "trainer/evaluation/pool*.py",
    "trainer/evaluation/zero_shot.py",
    "trainer/models/clip.py",
    "trainer/models/metaclip2.py",
    "trainer/objectives/contrastive.py",
    "trainer/order.py",
    "trainer/reader.py",
    "trainer/recipes/metaclip2-tiny.yaml",
    "trainer/sources/crops.py",
    "trainer/sources/image_text.py",
    "trainer/sources/pictures.py",
    "trainer/tokenizer.py",
)
MOST_REPEATS = 2.0


class Settings(BaseModel):
    """Settings of ``trainer claims run metaclip2``."""

    model_config = ConfigDict(extra="forbid")
    seeds: int = Field(5, ge=2, le=20, description="paired seeds: pool, weights and order")
    records: int = Field(100_000, ge=1_000, description="records of each seed's pool")
    concepts: int = Field(48, ge=2, description="concepts of the pool, which are the classes")
    samples: int = Field(30_000, ge=100, description="pairs that each arm sees")
    batch: int = Field(64, ge=8, description="pairs of a step")
    size: int = Field(64, ge=16, le=512, description="pixels a side of a rendering")
    p: float = Field(0.06, gt=0, lt=1, description="English tail proportion")
    images: int = Field(20, ge=2, le=200, description="held-out renderings of each class")


def tasks(settings: Settings) -> list[Task]:
    """The data of each seed, then the arms on it."""
    found = [Task("english")]
    for seed in range(settings.seeds):
        found.append(Task(f"data-{seed}", ("english",)))
        found += [Task(f"{arm}-{seed}", (f"data-{seed}",)) for arm in ARMS]
    return found


def cost(settings: Settings) -> str:
    """What the whole will take, in words."""
    runs = len(ARMS) * settings.seeds
    return (
        f"{settings.seeds} pools of {settings.records:,} records, {runs} trainings of "
        f"{settings.samples:,} pairs"
    )


def work(task: str, folder: Path, settings: Settings) -> dict[str, Any]:
    """Do a task; returns its facts."""
    if task == "english":
        _dataflows("metadata", "wordnets=builtin", "languages=en", f"output={folder / 'english'}")
        return {}
    name, _, number = task.rpartition("-")
    seed, place = int(number), folder / f"seed-{number}"
    if name == "data":
        return _data(place, folder / "english", seed, settings)
    return _arm(name, place, seed, settings)


def _data(place: Path, english: Path, seed: int, settings: Settings) -> dict[str, Any]:
    """One pool, curated in the four ways of the table."""
    p = f"p={settings.p}"
    row5 = place / "row5"
    pool = [f"pool.{name}={getattr(settings, name)}" for name in ("records", "concepts")]
    pool += [f"pool.image_size={settings.size}"]
    _dataflows("metaclip2", "input=generated", *pool, p, f"seed={seed}", f"output={row5}")
    t = _english_t(row5)
    again = (f"input={row5 / 'records'}", f"seed={seed}")
    ways = {
        "row4": (p, "threshold=shared"),
        "row3": (f"t_en={t}", "isolation=false"),
        "row1": (p, f"metadata={english / 'metadata'}"),
    }
    for arm, words in ways.items():
        _dataflows("metaclip2", *again, *words, f"output={place / arm}")
    return {"t": t, "digest": open_dataset(row5 / "curated").manifest.digest}


def _english_t(run: Path) -> int:
    stats = open_dataset(run / "balance").manifest.stats["languages"]
    t = int(stats["en"]["t"])
    if t == 1:
        raise CheckFailed(f"{run}: t = 1 in English, so there is no tail: raise records=")
    return t


def _arm(arm: str, place: Path, seed: int, settings: Settings) -> dict[str, Any]:
    """Train an arm and ask it; repeats are counted, and more than two refused."""
    from trainer.config import load
    from trainer.engine.run import train
    from trainer.evaluation import loading, registry
    from trainer.launching.place import place_of

    data = place / "row5" / "pool" if arm == "uncurated" else place / arm / "curated"
    rows = len(open_dataset(data))
    repeats = settings.samples / rows
    if repeats > MOST_REPEATS:
        raise CheckFailed(
            f"{arm}: {settings.samples:,} samples of {rows:,} pairs show each {repeats:.2f} times, and "
            f"the claim allows {MOST_REPEATS:g}: raise records= or lower samples="
        )
    output = place / "train" / arm
    words = [
        f"data.path={data}",
        "data.images=generated",
        f"data.render_size={settings.size}",
        f"batch.size={settings.batch}",
        f"length.samples={settings.samples}",
        f"seed={seed}",
        f"output={output}",
        f"tokenizer.dataset={place / 'row5' / 'pool'}",
    ]
    if code := train(load("metaclip2-tiny", words), place_of(os.environ)):
        raise JobError(f"{arm} seed {seed}: training ended with exit code {code}")
    asked = {
        "seed": seed,
        "images": settings.images,
        "size": settings.size,
        "concepts": settings.concepts,
        "classes": "tail",
        "run": str(place / "row5"),
        "languages": list(SHOWN_LANGUAGES),
    }
    result = registry.evaluate(loading.load(str(output)), "pool", asked)
    registry.write(result, str(output))
    return {
        "arm": arm,
        "seed": seed,
        "score": result["headline"]["mean"],
        "chance": result["headline"]["chance"],
        "classes": sum(result["tail"]),
        "languages": {k: v["macro"]["mean"] for k, v in result["languages"].items()},
        "pairs": min(rows, settings.samples),
        "repeats": round(max(1.0, repeats), 3),
    }


def judge(results: Mapping[str, Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    """The record's values: per-seed values of each arm, and each claimed difference with interval."""
    seeds = range(settings.seeds)
    arms: dict[str, Any] = {}
    for arm in ARMS:
        rows = [results[f"{arm}-{seed}"] for seed in seeds]
        arms[arm] = {
            "scores": [round(row["score"], 4) for row in rows],
            "mean": round(_mean([row["score"] for row in rows]), 4),
            "pairs": round(_mean([row["pairs"] for row in rows])),
            "repeats": round(_mean([row["repeats"] for row in rows]), 2),
            "languages": {
                name: round(_mean([row["languages"][name] for row in rows]), 4)
                for name in SHOWN_LANGUAGES
            },
        }
    differences = []
    for better, worse in CLAIMED:
        found = paired(
            [a - b for a, b in zip(*(arms[x]["scores"] for x in (better, worse)), strict=True)]
        )
        differences.append({"better": better, "worse": worse, **found, "holds": found["low"] > 0})
    first = [results[f"row5-{seed}"] for seed in seeds]
    return {
        "metric": METRIC,
        "settings": settings.model_dump(),
        "arms": arms,
        "differences": differences,
        "classes": [row["classes"] for row in first],
        "chance": round(_mean([row["chance"] for row in first]), 4),
        "t": [results[f"data-{seed}"]["t"] for seed in seeds],
        "holds": all(row["holds"] for row in differences),
    }


def recorded(values: Mapping[str, Any], task: str) -> float:
    """The recorded score of a task that trains an arm."""
    arm, _, seed = task.rpartition("-")
    return float(values["arms"][arm]["scores"][int(seed)])


def table(values: Mapping[str, Any]) -> list[str]:
    """The record as Markdown."""
    seeds = values["settings"]["seeds"]
    heads = ["arm", "mean", *(f"seed {n}" for n in range(seeds)), "unique pairs", "times seen"]
    heads += SHOWN_LANGUAGES
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for arm, row in values["arms"].items():
        cells = [f"{arm}: {ARMS[arm]}", f"{row['mean']:.3f}", *(f"{x:.3f}" for x in row["scores"])]
        cells += [f"{row['pairs']:,}", f"{row['repeats']:.2f}"]
        cells += [f"{row['languages'][name]:.3f}" for name in SHOWN_LANGUAGES]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for row in values["differences"]:
        verdict = "holds" if row["holds"] else "does not hold"
        lines.append(
            f"* {row['better']} above {row['worse']}: {row['mean']:+.3f}, 95 % interval of the paired "
            f"difference {row['low']:+.3f} to {row['high']:+.3f}: **{verdict}**"
        )
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _dataflows(recipe: str, *words: str) -> None:
    """Run a data pipeline: another program, met only in the datasets that it commits."""
    command = [sys.executable, "-m", "dataflows", "run", recipe, *words]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = process.communicate()[1]
        except BaseException:  # a task that is stopped leaves no pipeline behind
            process.terminate()
            raise
    sys.stderr.write(said)
    if process.returncode:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise JobError(f"dataflows run {recipe}: {last}")
