"""Evaluation `babi`: questions about short stories (Weston et al. 2015), accuracy by task.

The prompt is that of the task in EleutherAI's lm-evaluation-harness, without examples before it. An
answer counts if greedy decoding would give its tokens, those of a space and the answer: the harness
generates a line and compares the text, and so also asks that the line ends there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from trainer.evaluation.continuations import continued, records
from trainer.evaluation.intervals import mean_interval

if TYPE_CHECKING:
    from trainer.evaluation.language import LanguageModel

LANGUAGE = True
"""This evaluation is of language models."""

FIELDS = ("task", "story", "question", "answer")


class Settings(BaseModel):
    """Settings of ``trainer eval RUN babi path=...``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        description="JSON lines with task, story (a list of lines), question and answer, or a folder "
        "with babi_train.jsonl.gz"
    )
    records: int | None = Field(
        None, ge=1, description="at most so many of each task, the first (default: all)"
    )


def prompt(record: dict[str, Any]) -> str:
    """Return what stands before the answer."""
    story = "".join(f"{line}\n" for line in record["story"])
    return f"Passage: {story}Question: {record['question']}\nAnswer:"


def evaluate(loaded: LanguageModel, settings: Settings) -> dict[str, Any]:
    """Score questions; rows are ``all`` and the tasks. Chance: each task's most frequent answer."""
    rows = records(settings.path, "babi_train.jsonl.gz", FIELDS)
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row["task"]] += 1
        if settings.records is None or seen[row["task"]] <= settings.records:
            kept.append(row)
    found = continued(loaded, [(prompt(row), f" {row['answer']}") for row in kept], "questions")
    right = [float(greedy) for _, greedy in found]
    tasks = sorted(seen)
    of = {task: [i for i, row in enumerate(kept) if row["task"] == task] for task in tasks}
    frequent = {
        task: Counter(kept[i]["answer"] for i in places).most_common(1)[0][1]
        for task, places in of.items()
    }
    everything = mean_interval(right).to_json()
    chance = sum(frequent.values()) / len(kept)
    table = {"all": {"accuracy": everything, "chance": round(chance, 6)}}
    for task, places in of.items():
        table[task] = {
            "accuracy": mean_interval([right[i] for i in places]).to_json(),
            "chance": round(frequent[task] / len(places), 6),
        }
    return {
        "headline": {"metric": "accuracy", **everything, "chance": chance},
        "rows": table,
        "interval": "95 %, Wilson's score interval",
    }
