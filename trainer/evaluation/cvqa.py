"""Evaluation `cvqa`: questions of 30 countries with four answers, from its public Parquet files.

The layout (arXiv:2406.05967): Parquet with ``image`` {bytes, path}, ``Question``, ``Options`` (a list of
four), ``Translated Question``, ``Translated Options``, ``Label`` (0 to 3) and ``Subset`` (language and
country). The protocol of Meta CLIP 2 (spec section 8): question + space + each option; the highest
cosine wins. LOCAL takes the native fields, EN the translated ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError
from trainer.evaluation.intervals import mean_interval
from trainer.evaluation.pictures_of import of_bytes

if TYPE_CHECKING:
    from trainer.evaluation.loading import Loaded
    from trainer.sources.pictures import Pixels

TASKS = {"LOCAL": "", "EN": "Translated "}
"""Prefix of the columns of each task."""

OPTIONS = 4
_ROWS = 256


class Settings(BaseModel):
    """Settings of ``trainer eval RUN cvqa``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="folder with the Parquet files, or one of them")


@dataclass(frozen=True)
class Questions:
    """Rows in order: label, subset and a number for the picture; texts [rows][4] of each task."""

    labels: npt.NDArray[np.int64]
    subsets: list[str]
    picture: npt.NDArray[np.int64]
    texts: dict[str, list[list[str]]]


def evaluate(loaded: Loaded, settings: Settings) -> dict[str, Any]:
    """Score both tasks, overall and by subset; the headline is LOCAL. Chance is 1/4.

    Questions about the same picture count as one observation of an interval. InputError if the files
    are not CVQA's or a picture does not decode.
    """
    files = find(Path(settings.path))
    read = questions(files)
    images = loaded.image_features(_pictures(files), len(read.labels))
    hits = {}
    for task, texts in read.texts.items():
        flat = loaded.text_features([text for four in texts for text in four], f"answers, {task}")
        scores = np.einsum("nd,nkd->nk", images, flat.reshape(len(images), OPTIONS, -1))
        hits[task] = scores.argmax(1) == read.labels
    subset = np.array(read.subsets)
    overall = {task: mean_interval(hit, clusters=read.picture) for task, hit in hits.items()}
    return {
        "headline": {
            "metric": "accuracy of LOCAL",
            **overall["LOCAL"].to_json(),
            "chance": 1 / OPTIONS,
        },
        "overall": {task: estimate.to_json() for task, estimate in overall.items()},
        "languages": {
            name: {
                "questions": int((subset == name).sum()),
                **{
                    task: mean_interval(
                        hit[subset == name], clusters=read.picture[subset == name]
                    ).to_json()
                    for task, hit in hits.items()
                },
            }
            for name in sorted(set(read.subsets))
        },
    }


def find(path: Path) -> list[Path]:
    """Return the Parquet files of a folder (or the one that is given), checked for CVQA's columns."""
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        raise InputError(f"{path}: no Parquet file there; expected CVQA's, data/test-*.parquet")
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file}: not a Parquet file: {str(error).splitlines()[0]}") from None
        for name, right, wanted in _expected():
            if name not in schema.names:
                raise InputError(
                    f"{file}: no column {name!r}; CVQA has {', '.join(n for n, *_ in _expected())}, "
                    f"this file {', '.join(schema.names)}"
                )
            if not right(schema.field(name).type):
                raise InputError(
                    f"{file}: {name} is {schema.field(name).type}; expected {wanted}, as CVQA has it"
                )
    return files


def _expected() -> list[tuple[str, Any, str]]:
    lists = (pa.types.is_list, "a list of strings")
    text = (_is_text, "text")
    columns = [("image", pa.types.is_struct, "a struct of bytes and path")]
    for prefix in TASKS.values():
        columns += [(f"{prefix}Question", *text), (f"{prefix}Options", *lists)]
    return [*columns, ("Label", pa.types.is_integer, "a whole number"), ("Subset", *text)]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def questions(files: Sequence[Path]) -> Questions:
    """Read the texts and labels, and number the pictures by their bytes. InputError naming a row."""
    labels, subsets, picture = [], [], []
    texts: dict[str, list[list[str]]] = {task: [] for task in TASKS}
    number: dict[bytes, int] = {}
    for where, row in _rows(files, [name for name, *_ in _expected()]):
        for task, prefix in TASKS.items():
            question, options = row[f"{prefix}Question"], row[f"{prefix}Options"]
            if question is None or options is None or len(options) != OPTIONS or None in options:
                raise InputError(f"{where}: expected a question and four options of {task}")
            texts[task].append([f"{question} {option}" for option in options])
        if row["Label"] not in range(OPTIONS):
            raise InputError(f"{where}: Label is {row['Label']}; expected 0 to {OPTIONS - 1}")
        digest = hashlib.sha256(_bytes(where, row["image"])).digest()
        labels.append(row["Label"])
        subsets.append(str(row["Subset"]))
        picture.append(number.setdefault(digest, len(number)))
    if not labels:
        raise InputError(f"{files[0]}: no question in it")
    return Questions(np.array(labels), subsets, np.array(picture), texts)


def _pictures(files: Sequence[Path]) -> Iterator[Pixels]:
    for where, row in _rows(files, ["image"]):
        yield of_bytes(_bytes(where, row["image"]), where)


def _bytes(where: str, image: dict[str, Any] | None) -> bytes:
    data = (image or {}).get("bytes")
    if not data:
        raise InputError(f"{where}: the image has no bytes; expected the picture in the file")
    return bytes(data)


def _rows(files: Sequence[Path], columns: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and row number, values) of every row; a few are held at once."""
    for file in files:
        done = 0
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_ROWS, columns=columns):
                for row in batch.to_pylist():
                    yield f"{file}, row {done}", row
                    done += 1
