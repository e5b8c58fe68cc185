"""Cut the shipped corpus of texts from the sources that the SOURCE.md files name.

Usage, with a directory that holds the sources' files as listed there::

    python data/text/build.py SOURCES data/text

One JSON object a line with a `text` (Wikipedia's also with `title`), compressed with zstd. Nothing
is drawn at random, so the same sources give the same rows.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

PASSAGE = 4_000  # characters of consecutive speeches of a play that make one document
ROWS_A_FILE = 3_500
Row = dict[str, str]


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Objects of a .jsonl.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def wikipedia(sources: Path, language: str) -> Iterator[Row]:
    """The summary of each article, its title first."""
    for row in rows_of(sources / f"wikipedia-vital/summaries_{language}.jsonl.gz"):
        yield {"title": row["title"], "text": f"{row['title']}\n\n{row['extract']}"}


def shakespeare(sources: Path) -> Iterator[Row]:
    """Whole speeches one after the other, in passages of about equal length."""
    with gzip.open(sources / "tiny-shakespeare/input.txt.gz", "rt", encoding="utf-8") as file:
        speeches = file.read().strip().split("\n\n")
    passage: list[str] = []
    for speech in speeches:
        if passage and sum(map(len, passage)) + len(speech) > PASSAGE:
            yield {"text": "\n\n".join(passage)}
            passage = []
        passage.append(speech)
    yield {"text": "\n\n".join(passage)}


def gsm8k(sources: Path) -> Iterator[Row]:
    """A question and its solution, without the calculator's annotations."""
    for row in rows_of(sources / "gsm8k/train.jsonl.gz"):
        solution = re.sub(r"<<[^>]*>>", "", row["solution"])
        yield {"text": f"Question: {row['question']}\n\nAnswer: {solution}"}


def wikitext(sources: Path) -> Iterator[Row]:
    """An article: from one heading of the first level to the next."""
    with gzip.open(sources / "wikitext-2/valid.txt.gz", "rt", encoding="utf-8") as file:
        whole = file.read()
    for article in re.split(r"(?m)^(?= = [^=\n]+ = $)", whole):
        text = "\n".join(line.strip() for line in article.split("\n") if line.strip())
        if text:
            yield {"text": text}


def write(folder: Path, name: str, rows: list[Row]) -> None:
    """Files of at most ``ROWS_A_FILE`` rows."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = -(-len(rows) // ROWS_A_FILE)
    for part in range(parts):
        mine = rows[len(rows) * part // parts : len(rows) * (part + 1) // parts]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in mine)
        data = pa.Codec("zstd", compression_level=19).compress(lines.encode(), asbytes=True)
        stem = f"{name}-{part}" if parts > 1 else name
        (folder / f"{stem}.jsonl.zst").write_bytes(data)


def main(sources: Path, target: Path) -> None:
    """Write every file."""
    for language in ("en", "es", "fr"):
        write(target / "wikipedia", language, list(wikipedia(sources, language)))
    write(target / "shakespeare", "plays", list(shakespeare(sources)))
    write(target / "gsm8k", "train", list(gsm8k(sources)))
    write(target / "wikitext", "valid", list(wikitext(sources)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
