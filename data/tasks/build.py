"""Cut the shipped evaluation records from the sources that SOURCE.md names.

Usage, with a directory that holds the sources' files::

    python data/tasks/build.py SOURCES data/tasks

Nothing is drawn at random, so the same sources give the same rows.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSAGES, QUESTIONS = 300, 12  # in all; of each bAbI task


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a .jsonl.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """One object a line."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")


def main(sources: Path, target: Path) -> None:
    """Write every file."""
    passages = list(rows_of(sources / "lambada/lambada.jsonl.gz"))[:PASSAGES]
    wanted = ("context", "target")
    write(target / "lambada.jsonl", ({name: row[name] for name in wanted} for row in passages))
    seen: Counter[str] = Counter()
    questions = []
    for row in rows_of(sources / "babi/babi_train.jsonl.gz"):
        seen[row["task"]] += 1
        if seen[row["task"]] <= QUESTIONS:
            questions.append(row)
    wanted = ("task", "story", "question", "answer")
    write(target / "babi.jsonl", ({name: row[name] for name in wanted} for row in questions))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
