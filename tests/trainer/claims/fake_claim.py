"""A claim of a few tasks that take no time, and write down when they begin and end.

What a task does beside is asked for by files in the claim's folder: ``fail-TASK``, ``wait-TASK`` (until
the file ``begun-OTHER`` that it names is there) and ``sleep-TASK``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.errors import JobError
from trainer.claims.harness import Task

TITLE = "Fake: one is above the other"
METRIC = "a number"
SOURCES = ("fake.py",)


class Settings(BaseModel):
    seeds: int = 2
    words: str = "plain"


def tasks(settings: Settings) -> list[Task]:
    found = [Task("data")]
    for seed in range(settings.seeds):
        found += [Task(f"{arm}-{seed}", ("data",)) for arm in ("high", "low")]
    return found


def cost(settings: Settings) -> str:
    return f"{settings.seeds} seeds"


def events(folder: Path) -> list[str]:
    return (folder / "events.txt").read_text().splitlines()


def work(task: str, folder: Path, settings: Settings) -> dict[str, Any]:
    _note(folder, f"begin {task}")
    (folder / f"begun-{task}").touch()
    try:
        if (wait := folder / f"wait-{task}").exists():
            _until(folder / f"begun-{wait.read_text()}")
        if (folder / f"fail-{task}").exists():
            raise JobError(f"the {task} broke")
        if (folder / f"sleep-{task}").exists():
            time.sleep(60)
    finally:
        _note(folder, f"end {task}")
    if task == "data":
        return {}
    arm, _, seed = task.rpartition("-")
    return {"score": {"high": 0.5, "low": 0.25}[arm] + int(seed) / 8, "words": settings.words}


def judge(results: Mapping[str, Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    scores = {name: row["score"] for name, row in results.items() if "score" in row}
    holds = all(scores[f"high-{n}"] > scores[f"low-{n}"] for n in range(settings.seeds))
    return {
        "metric": METRIC,
        "settings": settings.model_dump(),
        "scores": scores,
        "holds": holds and settings.words != "reversed",
    }


def recorded(values: Mapping[str, Any], task: str) -> float:
    return float(values["scores"][task])


def table(values: Mapping[str, Any]) -> list[str]:
    return ["| task | score |", "| --- | --- |"] + [
        f"| {name} | {score} |" for name, score in values["scores"].items()
    ]


def _note(folder: Path, line: str) -> None:
    with (folder / "events.txt").open("a") as file:
        file.write(line + "\n")


def _until(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            raise JobError(f"{path.name} did not come")
        time.sleep(0.02)
