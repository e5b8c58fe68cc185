"""Evaluation `babi`: questions about short stories (Weston et al. 2015), accuracy by task.

The prompt is that of the task in EleutherAI's lm-evaluation-harness, without examples before it. An
answer counts if greedy decoding would give its tokens, those of a space and the answer: the harness
generates a line and compares the text, and so also asks that the line ends there. An answer of several
words, as "apple,football", counts whole.

Files are JSON lines, or the task's own text files (qa1_..._test.txt): numbered lines, a story begins at
number 1, a question is a line with tabs before its answer and the numbers of its supporting lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError
from trainer.evaluation.continuations import continued, records, text_of
from trainer.evaluation.intervals import mean_interval

if TYPE_CHECKING:
    from trainer.evaluation.language import LanguageModel

LANGUAGE = True
"""This evaluation is of language models."""

_LINE = re.compile(r"(\d+) (.*)")

FIELDS = ("task", "story", "question", "answer")


class Settings(BaseModel):
    """Settings of ``trainer eval RUN babi path=...``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        description="JSON lines with task, story (a list of lines), question and answer; a text file of "
        "bAbI; or a folder with babi_train.jsonl.gz or such text files"
    )
    split: str = Field("test", description="which text files of a folder: qa*_SPLIT.txt")
    records: int | None = Field(
        None, ge=1, description="at most so many of each task, the first (default: all)"
    )


def prompt(record: dict[str, Any]) -> str:
    """Return what stands before the answer."""
    story = "".join(f"{line}\n" for line in record["story"])
    return f"Passage: {story}Question: {record['question']}\nAnswer:"


def questions(path: str, split: str) -> list[dict[str, Any]]:
    """Records with `FIELDS` of a path, as `Settings` has it. InputError for what is no such file."""
    place = Path(path).expanduser()
    files = sorted(place.glob(f"qa*_{split}.txt")) if place.is_dir() else [place]
    if not files or files[0].suffix != ".txt":
        return records(path, "babi_train.jsonl.gz", FIELDS)
    rows = [row for file in files for row in told(file, path)]
    if not rows:
        raise InputError(f"path={path}: {files[0]} has no question: a line with tabs")
    return rows


def told(file: Path, path: str) -> Iterator[dict[str, Any]]:
    """Questions of one of the task's text files, in order; questions before one are not its story."""
    task = file.name.partition("_")[0]
    story: list[str] = []
    for number, line in enumerate(text_of(file, path).split("\n"), 1):
        if not (line := line.rstrip("\r")).strip():
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise InputError(
                f"{file}, line {number}: no number and sentence of bAbI: {line[:80]!r}"
            )
        place, said = found.groups()
        story = story if int(place) > 1 else []
        question, tab, rest = said.partition("\t")
        if tab:
            answer = rest.partition("\t")[0].strip()
            yield {
                "task": task,
                "story": list(story),
                "question": question.strip(),
                "answer": answer,
            }
        else:
            story.append(said.strip())


def evaluate(loaded: LanguageModel, settings: Settings) -> dict[str, Any]:
    """Score questions; rows are ``all`` and the tasks. Chance: each task's most frequent answer."""
    rows = questions(settings.path, settings.split)
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
