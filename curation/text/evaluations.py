"""Texts of evaluation sets, for the search for contamination."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from curation.ingest.files import File
from curation.ingest.jsonl import sample_keys
from curation.ingest.parquet import open_parquet
from curation.ingest.sources import Pinned
from curation.text.options import LINES, TextOptions
from curation.text.plan import TEXT_COLUMNS, format_of, plan_texts
from curation.text.reading import raw_texts
from curation.text.sources import find_texts
from schemas.errors import InputError

Named = tuple[tuple[str, File], ...]

_ASKED = ("question", "answer", "prompt", "problem", "solution", "passage", "query")
# Usual columns of evaluation sets, which the advice of an error names.


def find_evaluations(given: str | Sequence[str] | Mapping[str, str]) -> Named:
    """(set, file) of evaluation sets by path: a set has the name given, or that of its file and its
    directory, as gsm8k/test."""
    if not isinstance(given, Mapping):
        return tuple((_name(file.path), file) for file in find_texts(given, "decontaminate"))
    found = [
        (name, file)
        for name, places in given.items()
        for file in find_texts(places, f"decontaminate.{name}")
    ]
    return tuple(sorted(found, key=lambda one: (one[1].path, one[0])))


def _name(path: str) -> str:
    folder, file = posixpath.split(path)
    return f"{posixpath.basename(folder)}/{file.partition('.')[0]}"


def evaluation_texts(
    pinned: Pinned, names: Sequence[str], columns: Sequence[str]
) -> dict[str, pa.Array]:
    """All texts of each set: of ``columns`` where a file has them (at least one), else of its column
    of texts; plain text by lines. Raises InputError for a record that cannot be read."""
    texts: dict[str, list[pa.ChunkedArray]] = {}
    for source, name in zip(pinned.sources, names, strict=True):
        assert source.file is not None
        one = Pinned([source], [], pinned.checksums)
        for column in _columns(source.file, columns):
            options = TextOptions(text=column, split_on=LINES)
            for unit in plan_texts(one, [name], replace(options, unit_bytes=2**62)):
                for raw in raw_texts(unit, options):
                    if raw.bad:
                        raise InputError(
                            f"decontaminate: {source.path}: {raw.bad[0].error}; restore the file, or "
                            "take the record out"
                        )
                    texts.setdefault(name, []).append(_strings(raw.table, source.path))
    return {
        name: pa.concat_arrays([c for p in parts for c in p.chunks])
        for name, parts in texts.items()
    }


def _strings(table: pa.Table, path: str) -> pa.ChunkedArray:
    try:
        return table["text"].cast(pa.large_string())
    except pa.ArrowInvalid:
        raise InputError(f"decontaminate: {path} holds text that is not valid UTF-8") from None


def check_columns(files: Sequence[File], columns: Sequence[str]) -> None:
    """Raises InputError for an evaluation set without a column to read: before a run, not after its
    first stage. Cost: the footer of a Parquet file, the beginning of another."""
    for file in files:
        _columns(file, columns)


def _columns(file: File, wanted: Sequence[str]) -> list[str]:
    form = format_of(file, "auto")
    if form == "text":
        return [""]
    if form == "parquet":
        with open_parquet(file.path) as parquet:
            names = list(parquet.schema_arrow.names)
    else:
        names = sample_keys(file.path, TextOptions().max_line_bytes)
    if not wanted:
        if not any(name.lower() in TEXT_COLUMNS for name in names):
            raise InputError(
                f"decontaminate: {file.path} has no column that is known to hold texts "
                f"({', '.join(TEXT_COLUMNS)}). It has: {', '.join(names[:40])}. Name those of the "
                "evaluation set, as in contamination.columns="
                f"{','.join([n for n in names if n.lower() in _ASKED] or ['question', 'answer'])}"
            )
        return [""]
    found = [name for name in wanted if name in names]
    if not found:
        raise InputError(
            f"contamination.columns={','.join(wanted)}: {file.path} has none of them. It has: "
            f"{', '.join(names[:40])}"
        )
    return found
